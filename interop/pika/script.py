"""Scenarios for pika's callback adapters, written as generators.

A scenario yields operations: functions that take a callback. The script calls the operation, and sends what the
callback was given back into the scenario. So one scenario reads from top to bottom, and runs on every adapter.
"""

import asyncio

from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.select_connection import SelectConnection

from support import DEADLINE_S, parameters


class Script:
    """One connection, and the scenario that runs on it."""

    def __init__(self, adapter, scenario, **overrides):
        options = {"custom_ioloop": asyncio.new_event_loop()} if adapter is AsyncioConnection else {}
        self._scenario = scenario(self)
        self._waiting = None
        self._failure = None
        self._done = False
        self.close_reason = None
        self.connection = adapter(
            parameters(**overrides),
            on_open_callback=lambda _connection: self._advance(None),
            on_open_error_callback=lambda _connection, reason: self._fail(reason),
            on_close_callback=self._on_closed,
            **options,
        )

    def run(self):
        """Runs the scenario to its end, closes the connection, and raises what the scenario raised."""
        loop = self.connection.ioloop
        deadline = loop.call_later(DEADLINE_S, lambda: self._fail(TimeoutError("the scenario did not get on")))
        if isinstance(self.connection, SelectConnection):
            loop.start()
            loop.remove_timeout(deadline)
            loop.close()
        else:
            loop.run_forever()
            deadline.cancel()
            loop.close()
        if self._failure is not None:
            raise self._failure

    def channel(self):
        """The operation that opens a channel."""
        return lambda resume: self.connection.channel(on_open_callback=resume)

    def until(self, condition):
        """The operation that waits until the condition holds; it is tried whenever an event was recorded."""

        def operation(resume):
            self._waiting = (condition, resume)
            self.poke()

        return operation

    def record(self, events):
        """A callback that appends its arguments to `events`."""

        def callback(*arguments):
            events.append(arguments)
            self.poke()

        return callback

    def poke(self):
        if self._waiting is not None and self._waiting[0]():
            _, resume = self._waiting
            self._waiting = None
            # Not at once: pika has not finished with the event yet, a closed channel for one is still registered.
            self.connection.ioloop.call_later(0, lambda: resume(None))

    def _advance(self, value):
        try:
            operation = self._scenario.send(value)
            operation(lambda *values: self._advance(values[0] if len(values) == 1 else values))
        except StopIteration:
            self._done = True
            if self.connection.is_open:
                self.connection.close()
            elif self.connection.is_closed:
                self._stop()
        except BaseException as failure:  # pytest's own failures are not Exceptions
            self._fail(failure)

    def _on_closed(self, _connection, reason):
        self.close_reason = reason
        if self._done:
            self._stop()
            return
        self.poke()
        if self._waiting is not None:
            self._fail(reason)

    def _fail(self, failure):
        if self._failure is None and not self._done:
            self._failure = failure
        self._stop()

    def _stop(self):
        self.connection.ioloop.stop()

"""What the tests share: where the broker is, how to wait, and the shape of a refusal."""

import contextlib
import os
import time

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")

# No wait of the suite is longer than this: what has not come by then does not come.
DEADLINE_S = 15


def parameters(**overrides):
    """Connection parameters for the broker under test, with some of them replaced."""
    result = pika.URLParameters(URL)
    result.blocked_connection_timeout = DEADLINE_S
    for name, value in overrides.items():
        setattr(result, name, value)
    return result


def until(connection, condition, seconds=DEADLINE_S, every=DEADLINE_S):
    """Serves the connection until the condition holds; fails when the time is up.

    A condition that no frame of this connection announces, such as a queue's length, is asked again `every` so many
    seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        left = end - time.monotonic()
        assert left > 0, "what was waited for did not come in time"
        connection.process_data_events(time_limit=min(left, every))


@contextlib.contextmanager
def channel_closed(code, text):
    """The block costs the channel, with exactly this reply code and text."""
    with pytest.raises(ChannelClosedByBroker) as caught:
        yield
    assert (caught.value.reply_code, caught.value.reply_text) == (code, text)


@contextlib.contextmanager
def connection_closed(code, text):
    """The block costs the connection, with exactly this reply code and text."""
    with pytest.raises(ConnectionClosedByBroker) as caught:
        yield
    assert (caught.value.reply_code, caught.value.reply_text) == (code, text)


def publish(channel, exchange, routing_key, body=b"x", mandatory=False, **properties):
    """Publishes one message; on a channel in confirm mode it is in its queues afterwards."""
    channel.basic_publish(exchange, routing_key, body, pika.BasicProperties(**properties), mandatory)


def ready(channel, queue):
    """How many messages of the queue are ready, as its passive declaration reports."""
    return channel.queue_declare(queue, passive=True).method.message_count


def until_ready(connection, channel, *queues, count=1, seconds=DEADLINE_S):
    """Waits until each of the queues holds so many messages."""
    until(connection, lambda: all(ready(channel, queue) == count for queue in queues), seconds, every=0.02)


def consumers(channel, queue):
    """How many consumers the queue has, as its passive declaration reports."""
    return channel.queue_declare(queue, passive=True).method.consumer_count


def drain(channel, queue):
    """Takes all ready messages out of the queue and returns their bodies."""
    bodies = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)


class Inbox:
    """A consumer that keeps what it is sent."""

    def __init__(self, channel, queue, auto_ack=False, **options):
        self.channel = channel
        self.messages = []
        self.tag = channel.basic_consume(queue, self._on_message, auto_ack=auto_ack, **options)

    def _on_message(self, _channel, method, properties, body):
        self.messages.append((method, properties, body))

    def wait(self, count, seconds=DEADLINE_S):
        """Waits until `count` messages are here and returns all that are."""
        until(self.channel.connection, lambda: len(self.messages) >= count, seconds)
        return self.messages

    @property
    def bodies(self):
        return [body for _, _, body in self.messages]

    @property
    def delivery_tags(self):
        return [method.delivery_tag for method, _, _ in self.messages]

"""pika's asynchronous adapter: callbacks on an event loop."""
import asyncio

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection

from conftest import parameters


@pytest.mark.smoke
def test_publish_confirm_and_consume_on_an_event_loop():
    async def run():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        got, confirmed = [], []

        def fail(*reason):
            if not done.done():
                done.set_exception(AssertionError(reason))

        def on_channel(channel):
            channel.add_on_close_callback(fail)
            channel.queue_declare("", exclusive=True, callback=lambda ok: on_queue(channel, ok.method.queue))

        def on_queue(channel, queue):
            channel.confirm_delivery(lambda frame: confirmed.append(frame.method), callback=lambda _: start(channel, queue))

        def start(channel, queue):
            channel.basic_consume(queue, lambda ch, m, p, b: on_message(ch, m, b))
            for i in range(100):
                channel.basic_publish("", queue, b"%d" % i, pika.BasicProperties(delivery_mode=2))

        def on_message(channel, method, body):
            got.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(got) == 100:
                loop.call_later(0.2, lambda: done.done() or done.set_result(None))

        connection = AsyncioConnection(
            parameters(), on_open_callback=lambda c: c.channel(on_open_callback=on_channel),
            on_open_error_callback=fail, on_close_callback=fail, custom_ioloop=loop)
        await asyncio.wait_for(done, 20)
        assert got == [b"%d" % i for i in range(100)]
        assert max(m.delivery_tag for m in confirmed) == 100
        connection.close()

    asyncio.run(run())

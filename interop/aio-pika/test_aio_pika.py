"""What users of aio-pika do: awaited confirms, iterators, transactions of messages, RPC, robust connections."""

import asyncio
import datetime

import aio_pika
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.exceptions import (
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    MessageProcessError,
    ProbableAuthenticationError,
    QueueEmpty,
)
from aio_pika.patterns import RPC, Master
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from conftest import URL


async def send(channel, queue, body=b"x", **properties):
    await channel.default_exchange.publish(Message(body, **properties), routing_key=queue.name)


async def test_a_wrong_password_is_refused():
    with pytest.raises(ProbableAuthenticationError, match="ACCESS_REFUSED - Login was refused"):
        await aio_pika.connect(URL.replace("guest:guest@", "guest:wrong@", 1))


async def test_publish_and_iterate(channel, queue, soon):
    for number in range(20):
        await send(channel, queue, b"%d" % number)
    bodies = []

    async def consume():
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    bodies.append(message.body)
                if len(bodies) == 20:
                    return

    await soon(consume())
    assert bodies == [b"%d" % number for number in range(20)]
    assert (await queue.declare()).message_count == 0


async def test_a_message_that_fails_is_requeued_once_and_then_rejected(channel, queue, soon):
    """`process(requeue=True, reject_on_redelivered=True)` relies on the redelivered flag."""
    await send(channel, queue)
    seen = []

    async def consume():
        async with queue.iterator() as messages:
            async for message in messages:
                seen.append(message.redelivered)
                try:
                    async with message.process(requeue=True, reject_on_redelivered=True):
                        raise ValueError("the work went wrong")
                except ValueError:
                    if len(seen) == 2:
                        return

    await soon(consume())
    assert seen == [False, True]
    assert (await queue.declare()).message_count == 0


async def test_every_property_arrives(channel, queue, soon):
    now = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.timezone.utc)
    sent = Message(
        b"body",
        headers={"text": "grüße", "number": 5, "list": [1, "two"], "table": {"k": True}, "time": now},
        content_type="text/plain",
        content_encoding="utf-8",
        delivery_mode=DeliveryMode.PERSISTENT,
        priority=4,
        correlation_id="correlation",
        reply_to="reply.here",
        expiration=600,
        message_id="message",
        timestamp=now,
        type="kind",
        user_id="guest",
        app_id="interop",
    )
    await channel.default_exchange.publish(sent, queue.name)
    got = await soon(queue.get())
    await got.ack()
    for field in (
        "body headers content_type content_encoding delivery_mode priority correlation_id reply_to message_id timestamp "
        "type user_id app_id"
    ).split():
        assert getattr(got, field) == getattr(sent, field), field
    assert got.expiration == 600


@pytest.mark.parametrize("size", [0, 1, 200_000, 5 * 1024 * 1024])
async def test_bodies_of_any_size(channel, queue, soon, size):
    body = bytes(size)
    await send(channel, queue, body)
    assert (await soon(queue.get(no_ack=True))).body == body


async def test_get_from_an_empty_queue(queue):
    assert await queue.get(fail=False) is None
    with pytest.raises(QueueEmpty):
        await queue.get()


async def test_a_missing_queue_and_the_channel_that_follows(connection):
    for _ in range(3):
        channel = await connection.channel()
        with pytest.raises(ChannelNotFoundEntity, match="NOT_FOUND - no queue 'no-such-queue' in vhost '/'"):
            await channel.declare_queue("no-such-queue", passive=True)
        assert channel.is_closed and not connection.is_closed
    with pytest.raises(ChannelNotFoundEntity, match="NOT_FOUND - no exchange 'no-such-exchange' in vhost '/'"):
        await (await connection.channel()).get_exchange("no-such-exchange")


async def test_publishing_to_a_missing_exchange(channel):
    exchange = await channel.get_exchange("no-such-exchange", ensure=False)
    with pytest.raises(ChannelNotFoundEntity, match="no exchange 'no-such-exchange' in vhost '/'"):
        await exchange.publish(Message(b"x"), "key")


async def test_declaring_differently(connection, channel, name):
    existing = await channel.declare_queue(name(), exclusive=True, arguments={"x-message-ttl": 1000})
    text = (
        f"inequivalent arg 'x-message-ttl' for queue '{existing.name}' in vhost '/': received '2000' but current is '1000'"
    )
    with pytest.raises(ChannelPreconditionFailed, match=text):
        await channel.declare_queue(existing.name, exclusive=True, arguments={"x-message-ttl": 2000})


async def test_an_exclusive_queue_is_locked(connect, queue):
    stranger = await (await connect()).channel()
    with pytest.raises(ChannelLockedResource, match="RESOURCE_LOCKED - cannot obtain exclusive access to locked queue"):
        await stranger.declare_queue(queue.name, exclusive=True)


async def test_a_reserved_name(channel):
    with pytest.raises(ChannelAccessRefused, match="queue name 'amq.mine' contains reserved prefix 'amq.\\*'"):
        await channel.declare_queue("amq.mine")


async def test_an_unroutable_message_raises_with_its_return(connection):
    channel = await connection.channel(on_return_raises=True)
    with pytest.raises(DeliveryError) as caught:
        await channel.default_exchange.publish(Message(b"lost", message_id="m"), "no-such-queue")
    returned = caught.value.message
    assert (returned.delivery.reply_code, returned.delivery.reply_text) == (312, "NO_ROUTE")
    assert (returned.body, returned.header.properties.message_id) == (b"lost", "m")


async def test_a_full_queue_refuses(channel, name):
    queue = await channel.declare_queue(
        name(), exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    await send(channel, queue)
    with pytest.raises(DeliveryError):
        await send(channel, queue)
    assert (await queue.declare()).message_count == 1


async def test_many_publishes_at_once(channel, queue, soon):
    await soon(asyncio.gather(*(send(channel, queue, b"%d" % number) for number in range(1000))))
    assert (await queue.declare()).message_count == 1000


async def test_prefetch(channel, queue, soon):
    await channel.set_qos(prefetch_count=3)
    for number in range(5):
        await send(channel, queue, b"%d" % number)
    arrived = asyncio.Queue()
    tag = await queue.consume(arrived.put)
    held = [await soon(arrived.get()) for _ in range(3)]
    assert (await queue.declare()).message_count == 2
    assert arrived.empty()
    await held[2].ack(multiple=True)
    assert [(await soon(arrived.get())).body for _ in range(2)] == [b"3", b"4"]
    await queue.cancel(tag)


async def test_exchanges_of_every_type(channel, queue, name):
    for kind, key, arguments, publish_key, headers in (
        (ExchangeType.DIRECT, "key", None, "key", {}),
        (ExchangeType.FANOUT, "", None, "any", {}),
        (ExchangeType.TOPIC, "a.*.#", None, "a.b", {}),
        (ExchangeType.HEADERS, "", {"x-match": "all", "h": 1}, "", {"h": 1, "more": 2}),
    ):
        exchange = await channel.declare_exchange(name(kind.value), kind, auto_delete=True)
        await queue.bind(exchange, key, arguments=arguments)
        await exchange.publish(Message(kind.value.encode(), headers=headers), publish_key)
        assert (await queue.get(no_ack=True)).body == kind.value.encode()
        await queue.unbind(exchange, key, arguments=arguments)
        with pytest.raises(ChannelNotFoundEntity):
            await (await channel._connection.channel()).get_exchange(exchange.name)


async def test_exchanges_bound_to_each_other(channel, queue, name):
    front = await channel.declare_exchange(name("front"), ExchangeType.TOPIC, auto_delete=True)
    back = await channel.declare_exchange(name("back"), ExchangeType.FANOUT, auto_delete=True)
    await back.bind(front, "a.#")
    await front.bind(back)
    await queue.bind(back)
    await front.publish(Message(b"1"), "a.b")
    assert (await queue.get(no_ack=True)).body == b"1"
    assert await queue.get(fail=False) is None
    await front.delete()
    await back.delete()


async def test_a_dead_letter_tells_where_it_comes_from(channel, queue, name, soon):
    source = await channel.declare_queue(
        name("source"),
        exclusive=True,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue.name},
    )
    await send(channel, source, b"dies", expiration=0.1)
    arrived = asyncio.Queue()
    await queue.consume(arrived.put, no_ack=True)
    message = await soon(arrived.get())
    [death] = message.headers["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == (source.name, "expired", 1)
    assert (death["exchange"], death["routing-keys"], death["original-expiration"]) == ("", [source.name], "100")
    assert isinstance(death["time"], datetime.datetime)
    assert (message.expiration, message.headers["x-first-death-queue"]) == (None, source.name)


async def test_rpc_pattern(connect, name, soon):
    """aio-pika's own RPC: a reply queue, return notices for missing methods, and a dead-letter exchange for timeouts."""
    server, client = await (await connect()).channel(), await (await connect()).channel()
    method = name("multiply")

    async def multiply(*, x, y):
        return x * y

    serving = await RPC.create(server)
    await serving.register(method, multiply, auto_delete=True)
    calling = await RPC.create(client)
    results = await soon(asyncio.gather(*(calling.call(method, {"x": n, "y": n}) for n in range(50))))
    assert results == [n * n for n in range(50)]
    with pytest.raises(MessageProcessError, match="Message has been returned"):
        await soon(calling.call(name("nobody-serves-this"), {}))
    await calling.close()
    await serving.close()


async def test_work_queue_pattern(connect, name, soon):
    channel = await (await connect()).channel()
    await channel.set_qos(prefetch_count=5)
    master, done, task = Master(channel), asyncio.Queue(), name("task")

    async def work(*, number):
        await done.put(number)

    worker = await master.create_worker(task, work, auto_delete=True)
    for number in range(20):
        await master.create_task(task, {"number": number})
    assert sorted([await soon(done.get()) for _ in range(20)]) == list(range(20))
    await worker.close()


async def test_a_robust_connection_restores_its_consumer(connect, name, soon):
    """The transport is cut; aio-pika comes back and declares, binds and consumes as before."""
    connection = await connect(aio_pika.connect_robust, reconnect_interval=0.1)
    channel = await connection.channel()
    exchange = await channel.declare_exchange(name("exchange"), ExchangeType.DIRECT, auto_delete=True)
    queue = await channel.declare_queue(name("queue"), auto_delete=True)
    await queue.bind(exchange, "key")
    arrived, reconnected = asyncio.Queue(), asyncio.Event()
    await queue.consume(arrived.put, no_ack=True)
    await exchange.publish(Message(b"before"), "key")
    assert (await soon(arrived.get())).body == b"before"

    connection.reconnect_callbacks.add(lambda *_: reconnected.set())
    await connection.transport.connection.close(ConnectionResetError("cut by the test"))
    await soon(reconnected.wait())
    await exchange.publish(Message(b"after"), "key")
    assert (await soon(arrived.get())).body == b"after"

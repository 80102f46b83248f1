"""What programs do with kombu itself: producers with retries and pools, consumers and mixins, simple queues."""

import socket
import threading

import kombu
import pytest
from amqp.exceptions import NotFound, PreconditionFailed
from kombu.mixins import ConsumerMixin, ConsumerProducerMixin
from kombu.pools import connections, producers

from conftest import DEADLINE_S, URL


def exclusive(name, channel, **options):
    queue = kombu.Queue(name, durable=True, exclusive=True, **options)(channel)
    queue.declare()
    return queue


@pytest.mark.parametrize("serializer", ["json", "pickle", "raw"])
@pytest.mark.parametrize("compression", [None, "zlib", "bzip2"])
def test_bodies_survive_serializers_and_compression(connection, name, until, serializer, compression):
    body = b"\x00\xff" * 100 if serializer == "raw" else {"text": "ä", "list": [1, 2.5, None, True], "deep": {"a": {"b": []}}}
    queue = exclusive(name(), connection.default_channel)
    got = []
    with connection.Consumer(queue, accept=["json", "pickle", "application/data"]) as consumer:
        consumer.register_callback(lambda body, message: (got.append((body, message.headers)), message.ack()))
        producer = connection.Producer()
        encoded = {"content_type": "application/data", "content_encoding": "binary"} if serializer == "raw" else {"serializer": serializer}
        producer.publish(body, routing_key=queue.name, compression=compression, headers={"n": 1, "t": {"x": "y"}}, **encoded)
        until(connection, lambda: got)
    assert got[0][0] == body
    assert (got[0][1]["n"], got[0][1]["t"]) == (1, {"x": "y"})


def test_a_topic_exchange_and_a_binding_to_an_exchange(connection, name, until):
    channel = connection.default_channel
    news, copies = kombu.Exchange(name("news"), "topic", auto_delete=True), kombu.Exchange(name("copies"), "fanout", auto_delete=True)
    sports = exclusive(name(), channel, exchange=news, routing_key="sport.#")
    copies = copies(channel)
    copies.declare()
    copies.bind_to(news.name, routing_key="#.goal")
    all_copies = exclusive(name(), channel, exchange=copies)
    got = []
    with connection.Consumer([sports, all_copies], callbacks=[lambda b, m: (got.append((b, m.delivery_info["exchange"])), m.ack())]):
        producer = connection.Producer(exchange=news)
        for key in ("sport.football.goal", "sport.tennis", "weather"):
            producer.publish(key, routing_key=key, declare=[news])
        until(connection, lambda: len(got) == 3)
    assert sorted(body for body, _ in got) == ["sport.football.goal", "sport.football.goal", "sport.tennis"]
    assert {exchange for _, exchange in got} == {news.name}


def test_rejected_and_requeued(connection, name, until):
    queue = exclusive(name(), connection.default_channel)
    seen = []

    def once(_body, message):
        seen.append(message.delivery_info["redelivered"])
        message.ack() if message.delivery_info["redelivered"] else message.requeue()

    with connection.Consumer(queue, callbacks=[once]):
        connection.Producer().publish("x", routing_key=queue.name)
        until(connection, lambda: len(seen) == 2)
    assert seen == [False, True]


def test_a_delay_by_ttl_and_dead_letter_exchange(connection, name):
    channel = connection.default_channel
    ready = exclusive(name("ready"), channel)
    waiting = exclusive(
        name("waiting"), channel, expires=60, message_ttl=0.1, queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": ready.name}
    )
    with connection.SimpleQueue(ready) as box:
        connection.Producer().publish({"n": 1}, routing_key=waiting.name)
        message = box.get(timeout=DEADLINE_S)
        assert message.payload == {"n": 1}
        assert message.headers["x-death"][0]["queue"] == waiting.name
        message.ack()


def test_simple_queue_and_buffer(connection, name):
    with connection.SimpleQueue(name(), queue_opts={"exclusive": True, "durable": True}) as box:
        for n in range(10):
            box.put({"n": n})
        assert [box.get(timeout=DEADLINE_S).payload["n"] for _ in range(10)] == list(range(10))
        with pytest.raises(box.Empty):
            box.get_nowait()
    with connection.SimpleBuffer(name(), queue_opts={"exclusive": True, "auto_delete": True}) as box:
        box.put("x")
        assert box.get(timeout=DEADLINE_S).payload == "x"


def test_priorities(connection, name):
    queue = exclusive(name(), connection.default_channel, max_priority=10)
    for priority in (1, 9, 5):
        connection.Producer().publish(priority, routing_key=queue.name, priority=priority)
    with connection.SimpleQueue(queue) as box:
        assert [box.get(timeout=DEADLINE_S).payload for _ in range(3)] == [9, 5, 1]


def test_errors_have_their_classes(connection, name):
    with connection.channel() as channel, pytest.raises(NotFound, match="no queue"):
        channel.queue_declare(name(), passive=True)
    queue = name()
    with connection.channel() as channel:
        channel.queue_declare(queue, durable=True, auto_delete=True)
        with pytest.raises(PreconditionFailed, match="inequivalent arg 'durable'"):
            channel.queue_declare(queue, durable=False, auto_delete=True)
    connection.default_channel.queue_delete(queue)


def test_confirms_and_returns(connect, name):
    connection = connect(transport_options={"confirm_publish": True})
    channel = connection.channel()
    returned = []
    producer = kombu.Producer(channel, on_return=lambda e, _exchange, key, _message: returned.append((e.reply_code, e.reply_text, key)))
    producer.publish("x", routing_key="amq.nobody", mandatory=True, timeout=DEADLINE_S)
    assert returned == [(312, "NO_ROUTE", "amq.nobody")]
    queue = exclusive(name(), channel)
    for n in range(100):
        producer.publish(n, routing_key=queue.name, delivery_mode=2, timeout=DEADLINE_S)
    assert queue.queue_declare(passive=True).message_count == 100


def test_a_producer_of_a_pool_comes_back_after_a_loss(name):
    connection = kombu.Connection(URL)
    queue = name()
    with producers[connection].acquire(block=True) as producer:
        target = kombu.Queue(queue, durable=True, expires=60)
        producer.publish("before", routing_key=queue, declare=[target], retry=True)
        transport = producer.connection.connection.transport
        transport.sock.shutdown(socket.SHUT_RDWR)
        policy = {"interval_start": 0, "interval_step": 0.1, "max_retries": 10}
        producer.publish("after", routing_key=queue, declare=[target], retry=True, retry_policy=policy)
    with connections[connection].acquire(block=True) as other:
        with other.SimpleQueue(target) as box:
            assert [box.get(timeout=DEADLINE_S).payload for _ in range(2)] == ["before", "after"]
        other.default_channel.queue_delete(queue)
    connections[connection].force_close_all()
    producers[connection].force_close_all()


class Worker(ConsumerProducerMixin):
    """An RPC server, as the documentation shows it."""

    def __init__(self, connection, queue):
        self.connection, self.queue = connection, queue
        self.served = 0

    def get_consumers(self, Consumer, channel):
        return [Consumer([self.queue], callbacks=[self.on_task], prefetch_count=10)]

    def on_task(self, body, message):
        self.served += 1
        self.producer.publish(
            {"result": body["n"] ** 2},
            exchange="",
            routing_key=message.properties["reply_to"],
            correlation_id=message.properties["correlation_id"],
            retry=True,
        )
        message.ack()


def in_the_background(worker):
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    return thread


def test_rpc_with_a_mixin(connect, name, until):
    queue = kombu.Queue(name("rpc"), durable=True, expires=60)
    worker = Worker(connect(), queue)
    thread = in_the_background(worker)
    client, answers = connect(), {}
    replies = exclusive(name("replies"), client.default_channel)
    with client.Consumer(replies, no_ack=True, callbacks=[lambda b, m: answers.update({m.properties["correlation_id"]: b["result"]})]):
        for n in range(20):
            client.Producer().publish({"n": n}, routing_key=queue.name, declare=[queue], reply_to=replies.name, correlation_id=str(n))
        until(client, lambda: len(answers) == 20)
    assert answers == {str(n): n * n for n in range(20)}
    worker.should_stop = True
    thread.join(DEADLINE_S)
    client.default_channel.queue_delete(queue.name)


class Listener(ConsumerMixin):
    def __init__(self, connection, queue):
        self.connection, self.queue = connection, queue
        self.got, self.ready, self.done = [], threading.Event(), threading.Event()

    def get_consumers(self, Consumer, channel):
        self.channel = channel
        return [Consumer([self.queue], callbacks=[self.on_message])]

    def on_consume_ready(self, *_arguments, **_options):
        self.ready.set()

    def on_message(self, body, message):
        self.got.append(body)
        message.ack()
        if body == "last":
            self.done.set()


def test_a_mixin_connects_again(connect, name):
    queue = kombu.Queue(name(), durable=True, expires=60)
    worker = Listener(connect(), queue)
    thread = in_the_background(worker)
    producer = connect().Producer()
    assert worker.ready.wait(DEADLINE_S)
    producer.publish("first", routing_key=queue.name)
    worker.ready.clear()
    worker.channel.connection.transport.sock.shutdown(socket.SHUT_RDWR)
    assert worker.ready.wait(DEADLINE_S)
    producer.publish("last", routing_key=queue.name)
    assert worker.done.wait(DEADLINE_S)
    assert set(worker.got) == {"first", "last"}
    worker.should_stop = True
    thread.join(DEADLINE_S)
    producer.channel.queue_delete(queue.name)


def test_heartbeats_are_kept(connect):
    connection = connect(heartbeat=2)
    assert connection.get_heartbeat_interval() == 2
    connection.heartbeat_check()
    assert connection.connected

"""The exchange types beyond AMQP's four: hashing, random, recent history, delayed."""

import collections
import time

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from support import Inbox, channel_closed, drain, publish, ready, until, until_ready


def spread(channel, queues):
    return [ready(channel, queue) for queue in queues]


@pytest.mark.parametrize(
    "weight, text",
    [
        ("abc", 'The binding key must be an integer: <<"abc">>'),
        ("", "The binding key must be an integer: <<>>"),
        ("0", "The binding key must be greater than 0"),
        ("-1", "The binding key must be greater than 0"),
        ("10001", "The binding key must not exceed 10000"),
        ("99999999999999999999999", "The binding key must not exceed 10000"),
    ],
)
def test_the_binding_key_of_a_consistent_hash_is_a_weight(channel, exchange, queue, weight, text):
    hashing = exchange("x-consistent-hash")
    with channel_closed(406, f"PRECONDITION_FAILED - {text}"):
        channel.queue_bind(queue, hashing, weight)


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            {"hash-header": "h", "hash-property": "message_id"},
            "hash-header and hash-property are mutually exclusive",
        ),
        ({"hash-property": "message-id"}, "Unsupported property: message-id"),
    ],
)
def test_what_cannot_be_hashed_is_406(channel, exchange, arguments, text):
    with channel_closed(406, f"PRECONDITION_FAILED - {text}"):
        exchange("x-consistent-hash", arguments=arguments)


def test_a_consistent_hash_sends_a_key_always_the_same_way_and_shares_by_weight(channel, exchange, bound):
    hashing = exchange("x-consistent-hash")
    light, heavy = bound(hashing, "1"), bound(hashing, "3")
    for n in range(400):
        publish(channel, hashing, str(n))
    first = spread(channel, [light, heavy])
    assert sum(first) == 400
    assert 60 <= first[0] <= 140
    for n in range(400):
        publish(channel, hashing, str(n))
    assert spread(channel, [light, heavy]) == [2 * n for n in first]


@pytest.mark.parametrize(
    "arguments, properties",
    [
        ({"hash-header": "account"}, lambda n: {"headers": {"account": n}}),
        ({"hash-header": "account"}, lambda n: {"headers": {"account": f"name {n}"}}),
        ({"hash-property": "message_id"}, lambda n: {"message_id": str(n)}),
        ({"hash-property": "correlation_id"}, lambda n: {"correlation_id": str(n)}),
        ({"hash-property": "timestamp"}, lambda n: {"timestamp": n}),
    ],
)
def test_a_consistent_hash_of_a_header_or_property_ignores_the_key(channel, exchange, bound, arguments, properties):
    hashing = exchange("x-consistent-hash", arguments=arguments)
    queues = [bound(hashing, "1") for _ in range(4)]
    for n in range(25):
        for key in range(4):
            publish(channel, hashing, f"key {key}", str(n).encode(), **properties(n))
    seen = collections.Counter()
    for queue in queues:
        bodies = collections.Counter(drain(channel, queue))
        assert all(count == 4 for count in bodies.values())
        seen.update(bodies)
    assert len(seen) == 25
    publish(channel, hashing, "one", b"without")
    publish(channel, hashing, "two", b"without")
    assert sorted(spread(channel, queues)) == [0, 0, 0, 2]


@pytest.mark.parametrize("kind", ["x-random", "x-modulus-hash", "x-local-random"])
def test_one_queue_of_several_gets_the_message(channel, exchange, bound, kind):
    one = exchange(kind)
    queues = [bound(one, "") for _ in range(3)]
    for n in range(150):
        publish(channel, one, str(n))
    counts = spread(channel, queues)
    assert sum(counts) == 150
    assert min(counts) > 10


def test_a_local_random_exchange_takes_no_binding_key(channel, exchange, queue):
    local = exchange("x-local-random")
    with channel_closed(406, "PRECONDITION_FAILED - Non empty binding 'key' key not permitted"):
        channel.queue_bind(queue, local, "key")


def test_without_queues_the_choosing_exchanges_return(channel, exchange):
    for kind in ["x-random", "x-modulus-hash", "x-local-random", "x-consistent-hash"]:
        with pytest.raises(pika.exceptions.UnroutableError):
            publish(channel, exchange(kind), "key", mandatory=True)


@pytest.mark.parametrize("length, shown", [(0, "0"), (-1, "-1"), ("5", '<<"5">>')])
def test_the_length_of_a_history_is_positive(channel, exchange, length, shown):
    text = f"PRECONDITION_FAILED - Invalid argument {shown}, 'x-recent-history-length' must be a positive integer"
    with channel_closed(406, text):
        exchange("x-recent-history", arguments={"x-recent-history-length": length})


def test_who_binds_to_a_recent_history_gets_what_came_last(channel, exchange, bound, queue):
    recent = exchange("x-recent-history", arguments={"x-recent-history-length": 3})
    early = bound(recent, "")
    for n in range(5):
        publish(channel, recent, f"key {n}", str(n).encode())
    publish(channel, recent, "key", b"not this", headers={"x-recent-history-no-store": True})
    assert len(drain(channel, early)) == 6
    channel.queue_bind(queue, recent, "")
    assert drain(channel, queue) == [b"2", b"3", b"4"]
    # Binding again is no new binding.
    channel.queue_bind(queue, recent, "")
    assert ready(channel, queue) == 0


def test_a_recent_history_is_told_to_an_exchange_too(channel, exchange, bound):
    recent, fanout = exchange("x-recent-history"), exchange("fanout")
    queue = bound(fanout, "")
    publish(channel, recent, "a", b"1")
    channel.exchange_bind(fanout, recent, "")
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert (method.exchange, method.routing_key, body) == (recent, "a", b"1")


# ---- x-delayed-message: a plugin of RabbitMQ's that the reference broker does not have -------------------------------


@pytest.fixture
def delayed(connect, exchange):
    try:
        connect().channel().exchange_declare("", "x-delayed-message")
    except ChannelClosedByBroker as e:
        if "unknown exchange type" in e.reply_text:
            pytest.skip("this broker has no x-delayed-message exchange")

    def make(kind="direct", **arguments):
        return exchange("x-delayed-message", durable=True, arguments={"x-delayed-type": kind, **arguments})

    return make


@pytest.mark.parametrize("arguments", [{}, {"x-delayed-type": "nonsense"}, {"x-delayed-type": "x-delayed-message"}])
def test_a_delayed_exchange_needs_a_type(channel, delayed, exchange, arguments):
    text = "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type"
    with channel_closed(406, text):
        exchange("x-delayed-message", arguments=arguments)


def test_delayed_messages_come_in_the_order_of_their_times(channel, connection, delayed, bound):
    later = delayed("topic")
    inbox = Inbox(channel, bound(later, "a.*"), auto_ack=True)
    began = time.monotonic()
    for delay in [600, 200, 400]:
        publish(channel, later, "a.b", str(delay).encode(), headers={"x-delay": delay})
    publish(channel, later, "a.b", b"now")
    publish(channel, later, "a.b", b"negative", headers={"x-delay": -100})
    publish(channel, later, "b", b"elsewhere", headers={"x-delay": 10})
    until(connection, lambda: len(inbox.bodies) == 5)
    assert inbox.bodies == [b"now", b"negative", b"200", b"400", b"600"]
    assert time.monotonic() - began >= 0.6
    method, properties, _ = inbox.messages[-1]
    assert (method.exchange, method.routing_key, method.redelivered) == (later, "a.b", False)
    # As RabbitMQ's plugin does, so that no other exchange delays it again.
    assert properties.headers == {"x-delay": -600}


def test_a_delayed_message_is_routed_when_its_time_has_come(channel, connection, delayed, exchange, bound, queue):
    later, alternate = delayed("direct"), exchange("fanout")
    lost = delayed("direct", **{"alternate-exchange": alternate})
    fallback = bound(alternate, "")
    publish(channel, later, "key", b"bound later", mandatory=True, headers={"x-delay": 150}, delivery_mode=2)
    publish(channel, lost, "key", b"nowhere", headers={"x-delay": 150})
    channel.queue_bind(queue, later, "key")
    until_ready(connection, channel, queue, fallback)


def test_delays_and_copies_and_priorities_and_expirations_go_together(channel, connection, delayed, name):
    later = delayed("direct")
    queue = channel.queue_declare(name("priorities"), durable=True, arguments={"x-max-priority": 5}).method.queue
    channel.queue_bind(queue, later, "one")
    channel.queue_bind(queue, later, "two")
    publish(channel, later, "one", b"low", headers={"x-delay": 100, "CC": ["two"]}, priority=1)
    publish(channel, later, "none", b"high", headers={"x-delay": 100, "CC": ["two"]}, priority=5)
    publish(channel, later, "one", b"gone", headers={"x-delay": 1}, expiration="1")
    until_ready(connection, channel, queue, count=2)
    assert drain(channel, queue) == [b"high", b"low"]


def test_with_a_delayed_exchange_go_its_messages(channel, connection, delayed, bound):
    later = delayed("fanout")
    publish(channel, later, "", b"never", headers={"x-delay": 100})
    channel.exchange_delete(later)
    channel.exchange_declare(later, "x-delayed-message", durable=True, arguments={"x-delayed-type": "fanout"})
    queue = bound(later, "")
    publish(channel, later, "", b"after it", headers={"x-delay": 200})
    until_ready(connection, channel, queue)
    assert drain(channel, queue) == [b"after it"]


def test_a_transaction_delays_with_its_commit(connection, delayed, bound):
    later = delayed("fanout")
    queue = bound(later, "")
    channel = connection.channel()
    channel.tx_select()
    publish(channel, later, "", b"x", headers={"x-delay": 50})
    channel.tx_rollback()
    publish(channel, later, "", b"y", headers={"x-delay": 50})
    channel.tx_commit()
    until_ready(connection, channel, queue)
    assert drain(channel, queue) == [b"y"]


def test_another_delayed_type_is_406(channel, delayed):
    later = delayed("direct")
    text = (
        f"PRECONDITION_FAILED - inequivalent arg 'x-delayed-type' for exchange '{later}' in vhost '/': "
        "received 'fanout' but current is 'direct'"
    )
    with channel_closed(406, text):
        channel.exchange_declare(later, "x-delayed-message", durable=True, arguments={"x-delayed-type": "fanout"})

"""queue.*: equivalence, exclusivity, names, refusals, life spans."""

import re

import pytest

from support import Inbox, channel_closed, consumers, drain, publish, ready, until


def missing(queue):
    return f"NOT_FOUND - no queue '{queue}' in vhost '/'"


def locked(queue):
    return (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be "
        "originally declared on another connection or the exclusive property value does not match that of the "
        "original declaration."
    )


def inequivalent(argument, queue, received, current):
    return (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{queue}' in vhost '/': "
        f"received {received} but current is {current}"
    )


@pytest.mark.smoke
def test_declare_ok_counts_ready_messages_and_consumers(connection, channel, queue):
    for _ in range(3):
        publish(channel, "", queue)
    taking = connection.channel()
    taking.basic_get(queue)
    declared = channel.queue_declare(queue, durable=True).method
    assert (declared.queue, declared.message_count, declared.consumer_count) == (queue, 2, 0)
    taking.basic_qos(prefetch_count=1)
    Inbox(taking, queue).wait(1)
    assert (ready(channel, queue), consumers(channel, queue)) == (1, 1)


def test_the_server_names_a_queue(channel):
    names = [channel.queue_declare("", exclusive=True).method.queue for _ in range(2)]
    assert names[0] != names[1]
    for each in names:
        assert re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", each)


def test_an_empty_name_means_the_last_declared_queue(channel):
    channel.queue_declare("", exclusive=True)
    last = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind("", "amq.direct", "")
    publish(channel, "amq.direct", last, b"the key is the name of the queue")
    assert ready(channel, last) == 1
    channel.queue_bind("", "amq.direct", "interop.last-declared")
    publish(channel, "amq.direct", "interop.last-declared", b"by its own key")
    method, _, _ = channel.basic_get("", auto_ack=True)
    assert method.message_count == 1
    assert channel.queue_purge("").method.message_count == 1
    inbox = Inbox(channel, "")
    publish(channel, "", last, b"consumed")
    assert inbox.wait(1)[0][2] == b"consumed"
    channel.queue_delete("")
    with channel_closed(404, missing(last)):
        channel.queue_declare(last, passive=True)


def test_an_empty_name_without_a_declared_queue_is_404(connection):
    for operation in (
        lambda channel: channel.queue_purge(""),
        lambda channel: channel.queue_bind("", "amq.direct", "key"),
        lambda channel: channel.basic_get(""),
        lambda channel: channel.basic_consume("", print),
    ):
        with channel_closed(404, "NOT_FOUND - no previously declared queue"):
            operation(connection.channel())


def test_a_name_with_the_reserved_prefix_is_403(channel):
    with channel_closed(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"):
        channel.queue_declare("amq.mine")


def test_a_server_named_queue_can_be_declared_again_only_passively(channel):
    generated = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_declare(generated, passive=True)
    text = f"ACCESS_REFUSED - queue name '{generated}' contains reserved prefix 'amq.*'"
    with channel_closed(403, text):
        channel.queue_declare(generated, exclusive=True)


@pytest.mark.parametrize(
    "first, second, argument, received, current",
    [
        ({"durable": False}, {"durable": True}, "durable", "'true'", "'false'"),
        ({"durable": True}, {"durable": False}, "durable", "'false'", "'true'"),
        ({"auto_delete": False}, {"auto_delete": True}, "auto_delete", "'true'", "'false'"),
        (
            {"arguments": {"x-message-ttl": 10000}},
            {"arguments": {"x-message-ttl": 20000}},
            "x-message-ttl",
            "'20000'",
            "'10000'",
        ),
        (
            {"arguments": {"x-message-ttl": 10000}},
            {},
            "x-message-ttl",
            "none",
            "the value '10000' of type 'signedint'",
        ),
        (
            {},
            {"arguments": {"x-message-ttl": 20000}},
            "x-message-ttl",
            "the value '20000' of type 'signedint'",
            "none",
        ),
        (
            {"arguments": {"x-dead-letter-exchange": "a"}},
            {"arguments": {"x-dead-letter-exchange": "b"}},
            "x-dead-letter-exchange",
            "'b'",
            "'a'",
        ),
        (
            {"arguments": {"x-max-length": 5}},
            {"arguments": {"x-max-length": 6}},
            "x-max-length",
            "'6'",
            "'5'",
        ),
    ],
)
def test_declaring_again_differently_is_406(channel, name, first, second, argument, received, current):
    existing = channel.queue_declare(name("queue"), **first).method.queue
    with channel_closed(406, inequivalent(argument, existing, received, current)):
        channel.queue_declare(existing, **second)


@pytest.mark.parametrize(
    "first, second",
    [
        ({"x-message-ttl": 10_000_000_000}, {"x-message-ttl": 10_000_000_000}),
        ({"x-of-my-own": 1}, {"x-of-my-own": "two"}),
        ({"x-of-my-own": 1}, {}),
        ({"x-queue-type": "classic"}, {}),
        ({}, {"x-queue-type": "classic"}),
    ],
)
def test_declaring_again_equivalently_succeeds(channel, name, first, second):
    existing = channel.queue_declare(name("queue"), arguments=first).method.queue
    assert channel.queue_declare(existing, arguments=second).method.queue == existing


def test_a_passive_declaration_ignores_flags_and_arguments(channel, queue):
    declared = channel.queue_declare(queue, passive=True, auto_delete=True, arguments={"x-message-ttl": 5})
    assert declared.method.queue == queue


@pytest.mark.parametrize(
    "operation",
    [
        lambda channel, queue: channel.queue_declare(queue, exclusive=True),
        lambda channel, queue: channel.queue_declare(queue, passive=True),
        lambda channel, queue: channel.queue_bind(queue, "amq.direct", "key"),
        lambda channel, queue: channel.queue_unbind(queue, "amq.direct", "key"),
        lambda channel, queue: channel.basic_consume(queue, print),
        lambda channel, queue: channel.basic_get(queue),
        lambda channel, queue: channel.queue_purge(queue),
        lambda channel, queue: channel.queue_delete(queue),
    ],
    ids=["declare", "passive", "bind", "unbind", "consume", "get", "purge", "delete"],
)
def test_an_exclusive_queue_is_405_for_other_connections(connect, name, operation):
    exclusive = name("exclusive")
    owner = connect().channel()
    owner.queue_declare(exclusive, exclusive=True)
    owner.queue_bind(exclusive, "amq.direct", "key")
    with channel_closed(405, locked(exclusive)):
        operation(connect().channel(), exclusive)


def test_anyone_may_publish_to_an_exclusive_queue(connect, channel, name):
    exclusive = channel.queue_declare(name("exclusive"), exclusive=True).method.queue
    inbox = Inbox(channel, exclusive)
    publish(connect().channel(), "", exclusive, b"from outside")
    assert inbox.wait(1)[0][2] == b"from outside"


def test_the_exclusive_flag_has_to_match_on_the_same_connection_too(connection, channel, name, queue):
    exclusive = channel.queue_declare(name("exclusive"), exclusive=True).method.queue
    with channel_closed(405, locked(exclusive)):
        channel.queue_declare(exclusive)
    with channel_closed(405, locked(queue)):
        connection.channel().queue_declare(queue, durable=True, exclusive=True)


@pytest.mark.parametrize(
    "arguments, argument, error",
    [
        ({"x-message-ttl": -1}, "x-message-ttl", "{value_negative,-1}"),
        ({"x-message-ttl": "soon"}, "x-message-ttl", '"expected integer, got longstr"'),
        ({"x-message-ttl": 315360000001}, "x-message-ttl", "{value_too_large,315360000001}"),
        ({"x-expires": 0}, "x-expires", "{value_zero,0}"),
        ({"x-expires": "soon"}, "x-expires", '"expected integer, got longstr"'),
        ({"x-max-length": -1}, "x-max-length", "{value_negative,-1}"),
        ({"x-max-length-bytes": -7}, "x-max-length-bytes", "{value_negative,-7}"),
        ({"x-overflow": "spill"}, "x-overflow", "invalid_overflow"),
        ({"x-queue-type": "heap"}, "x-queue-type", "\"unsupported queue type 'heap'\""),
        ({"x-max-priority": -1}, "x-max-priority", "{value_negative,-1}"),
        ({"x-max-priority": 256}, "x-max-priority", "{max_value_exceeded,256}"),
        ({"x-dead-letter-routing-key": "k"}, "x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"),
    ],
)
def test_an_invalid_argument_is_406(channel, name, arguments, argument, error):
    refused = name("queue")
    text = f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{refused}' in vhost '/': {error}"
    with channel_closed(406, text):
        channel.queue_declare(refused, durable=True, arguments=arguments)


def test_a_dead_letter_exchange_that_is_not_a_string_is_406(channel, name):
    refused = name("queue")
    text = f"PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue '{refused}' in vhost '/'"
    with channel_closed(406, text):
        channel.queue_declare(refused, arguments={"x-dead-letter-exchange": 5})


def test_binding_with_a_missing_side_is_404(connection, queue):
    with channel_closed(404, "NOT_FOUND - no exchange 'no-such-exchange' in vhost '/'"):
        connection.channel().queue_bind(queue, "no-such-exchange", "key")
    with channel_closed(404, missing("no-such-queue")):
        connection.channel().queue_bind("no-such-queue", "amq.direct", "key")


def test_binding_twice_makes_one_binding(channel, exchange, queue):
    fanout = exchange("fanout")
    channel.queue_bind(queue, fanout, "key")
    channel.queue_bind(queue, fanout, "key")
    publish(channel, fanout, "key")
    assert len(drain(channel, queue)) == 1
    channel.queue_unbind(queue, fanout, "key")
    publish(channel, fanout, "key")
    assert drain(channel, queue) == []


def test_unbinding_what_is_not_bound_succeeds(channel, queue):
    channel.queue_unbind(queue, "amq.direct", "never-bound")
    channel.queue_unbind(queue, "no-such-exchange", "never-bound")
    channel.queue_unbind("no-such-queue", "amq.direct", "never-bound")


def test_purge_counts_and_leaves_the_unacknowledged(connection, channel, queue):
    for body in (b"1", b"2", b"3"):
        publish(channel, "", queue, body)
    method, _, _ = channel.basic_get(queue)
    assert channel.queue_purge(queue).method.message_count == 2
    channel.basic_nack(method.delivery_tag, requeue=True)
    assert drain(channel, queue) == [b"1"]


@pytest.mark.parametrize(
    "operation",
    [
        lambda channel: channel.queue_purge("no-such-queue"),
        lambda channel: channel.basic_get("no-such-queue"),
        lambda channel: channel.basic_consume("no-such-queue", print),
    ],
    ids=["purge", "get", "consume"],
)
def test_a_missing_queue_is_404(channel, operation):
    with channel_closed(404, missing("no-such-queue")):
        operation(channel)


def test_deleting_a_missing_queue_succeeds_with_zero(channel, name):
    assert channel.queue_delete(name("never-declared")).method.message_count == 0


def test_delete_returns_the_number_of_ready_messages(channel, queue):
    for _ in range(4):
        publish(channel, "", queue)
    assert channel.queue_delete(queue).method.message_count == 4


def test_a_queue_with_consumers_stays_if_unused_is_asked_for(connection, channel, queue):
    Inbox(channel, queue)
    with channel_closed(406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use"):
        connection.channel().queue_delete(queue, if_unused=True)


def test_a_queue_with_messages_stays_if_empty_is_asked_for(connection, channel, queue):
    publish(channel, "", queue)
    with channel_closed(406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"):
        connection.channel().queue_delete(queue, if_empty=True)
    channel.basic_get(queue)
    channel.queue_delete(queue, if_empty=True)


def test_auto_delete_takes_effect_with_the_last_consumer(channel, name):
    passing = channel.queue_declare(name("auto-delete"), auto_delete=True).method.queue
    publish(channel, "", passing)
    channel.basic_get(passing, auto_ack=True)
    first, second = Inbox(channel, passing), Inbox(channel, passing)
    channel.basic_cancel(first.tag)
    assert consumers(channel, passing) == 1
    channel.basic_cancel(second.tag)
    with channel_closed(404, missing(passing)):
        channel.queue_declare(passing, passive=True)


def test_an_auto_delete_queue_that_was_never_consumed_stays(channel, name):
    staying = channel.queue_declare(name("auto-delete"), auto_delete=True).method.queue
    channel.basic_get(staying)
    assert ready(channel, staying) == 0


def test_an_auto_delete_queue_goes_with_the_connection_of_its_consumer(connect, channel, name):
    passing = channel.queue_declare(name("auto-delete"), auto_delete=True).method.queue
    leaving = connect()
    Inbox(leaving.channel(), passing)
    leaving.close()
    with channel_closed(404, missing(passing)):
        channel.queue_declare(passing, passive=True)


def test_a_transient_shared_queue_is_accepted(connect, channel, name):
    shared = channel.queue_declare(name("transient"), durable=False, exclusive=False).method.queue
    publish(connect().channel(), "", shared, b"shared")
    inbox = Inbox(channel, shared)
    until(channel.connection, lambda: inbox.messages)
    assert inbox.bodies == [b"shared"]


def test_deleting_a_queue_removes_its_bindings(channel, exchange, name):
    fanout, again = exchange("fanout"), name("queue")
    channel.queue_declare(again)
    channel.queue_bind(again, fanout, "")
    channel.queue_delete(again)
    channel.queue_declare(again)
    publish(channel, fanout, "")
    assert ready(channel, again) == 0

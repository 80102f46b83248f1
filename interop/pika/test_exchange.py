"""exchange.*: equivalence, refusals, life spans."""

import pytest

from support import channel_closed, drain, publish

DEFAULT_REFUSED = "ACCESS_REFUSED - operation not permitted on the default exchange"


def missing(exchange):
    return f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"


@pytest.mark.parametrize(
    "predeclared, kind",
    [
        ("amq.direct", "direct"),
        ("amq.fanout", "fanout"),
        ("amq.topic", "topic"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ],
)
def test_the_predeclared_exchanges_are_there(channel, predeclared, kind):
    channel.exchange_declare(predeclared, kind, passive=True)
    channel.exchange_declare(predeclared, kind, durable=True)


def test_declaring_again_with_the_same_properties_changes_nothing(channel, exchange, bound):
    again = exchange("direct", durable=True)
    queue = bound(again, "key")
    channel.exchange_declare(again, "direct", durable=True)
    publish(channel, again, "key")
    assert len(drain(channel, queue)) == 1


def test_a_passive_declaration_ignores_type_and_flags(channel, exchange):
    channel.exchange_declare(exchange("direct"), "fanout", passive=True, durable=True, internal=True)


@pytest.mark.parametrize(
    "second, property_name, received, current",
    [
        ({"exchange_type": "fanout"}, "type", "fanout", "direct"),
        ({"durable": True}, "durable", "true", "false"),
        ({"auto_delete": True}, "auto_delete", "true", "false"),
        ({"internal": True}, "internal", "true", "false"),
    ],
)
def test_declaring_again_differently_is_406(channel, exchange, second, property_name, received, current):
    existing = exchange("direct")
    options = {"exchange_type": "direct", **second}
    text = (
        f"PRECONDITION_FAILED - inequivalent arg '{property_name}' for exchange '{existing}' in vhost '/': "
        f"received '{received}' but current is '{current}'"
    )
    with channel_closed(406, text):
        channel.exchange_declare(existing, **options)


def test_another_alternate_exchange_is_406(channel, exchange):
    existing = exchange("direct", arguments={"alternate-exchange": "amq.fanout"})
    text = (
        f"PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{existing}' in vhost '/': "
        "received 'amq.direct' but current is 'amq.fanout'"
    )
    with channel_closed(406, text):
        channel.exchange_declare(existing, "direct", arguments={"alternate-exchange": "amq.direct"})


def test_leaving_the_alternate_exchange_out_is_406(channel, exchange):
    existing = exchange("direct", arguments={"alternate-exchange": "amq.fanout"})
    text = (
        f"PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{existing}' in vhost '/': "
        "received none but current is the value 'amq.fanout' of type 'longstr'"
    )
    with channel_closed(406, text):
        channel.exchange_declare(existing, "direct")


def test_an_unknown_argument_is_not_compared(channel, exchange):
    existing = exchange("direct", arguments={"x-of-my-own": 1})
    channel.exchange_declare(existing, "direct", arguments={"x-of-my-own": "two"})


def test_an_alternate_exchange_of_the_wrong_type_is_406(channel, name):
    refused = name("direct")
    text = f"PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange '{refused}' in vhost '/'"
    with channel_closed(406, text):
        channel.exchange_declare(refused, "direct", arguments={"alternate-exchange": 5})


def test_an_unknown_type_is_406(channel, name):
    with channel_closed(406, "PRECONDITION_FAILED - unknown exchange type 'x-no-such-type'"):
        channel.exchange_declare(name("odd"), "x-no-such-type")


def test_a_name_with_the_reserved_prefix_is_403(channel):
    text = "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"
    with channel_closed(403, text):
        channel.exchange_declare("amq.mine", "direct")


@pytest.mark.parametrize(
    "operation",
    [
        lambda channel, queue: channel.exchange_declare("", "direct", durable=True),
        lambda channel, queue: channel.exchange_declare("", "direct", passive=True),
        lambda channel, queue: channel.exchange_delete(""),
        lambda channel, queue: channel.exchange_bind("amq.fanout", "", "key"),
        lambda channel, queue: channel.exchange_bind("", "amq.fanout", "key"),
        lambda channel, queue: channel.queue_bind(queue, "", "key"),
        lambda channel, queue: channel.queue_unbind(queue, "", queue),
    ],
    ids=["declare", "passive", "delete", "bind source", "bind destination", "queue bind", "queue unbind"],
)
def test_the_default_exchange_cannot_be_changed(channel, queue, operation):
    with channel_closed(403, DEFAULT_REFUSED):
        operation(channel, queue)


def test_a_system_exchange_cannot_be_deleted(channel):
    text = "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"
    with channel_closed(403, text):
        channel.exchange_delete("amq.direct")


def test_deleting_a_missing_exchange_succeeds(channel, name):
    channel.exchange_delete(name("never-declared"))


def test_deleting_takes_the_bindings_with_it(channel, exchange, bound):
    gone = exchange("direct")
    queue = bound(gone, "key")
    channel.exchange_delete(gone)
    channel.exchange_declare(gone, "direct")
    publish(channel, gone, "key")
    assert drain(channel, queue) == []


def test_an_exchange_in_use_stays_if_unused_is_asked_for(channel, exchange, bound):
    used = exchange("direct")
    bound(used, "key")
    with channel_closed(406, f"PRECONDITION_FAILED - exchange '{used}' in vhost '/' in use"):
        channel.exchange_delete(used, if_unused=True)


def test_a_binding_to_an_exchange_does_not_make_it_used(channel, exchange):
    destination = exchange("direct")
    channel.exchange_bind(destination, "amq.fanout", "")
    channel.exchange_delete(destination, if_unused=True)


def test_auto_delete_takes_effect_with_the_last_binding(connection, channel, exchange, bound):
    passing = exchange("direct", auto_delete=True)
    queue = bound(passing, "one")
    channel.queue_bind(queue, passing, "two")
    channel.queue_unbind(queue, passing, "one")
    channel.exchange_declare(passing, passive=True)
    channel.queue_unbind(queue, passing, "two")
    with channel_closed(404, missing(passing)):
        channel.exchange_declare(passing, passive=True)


def test_an_auto_delete_exchange_that_was_never_bound_stays(channel, exchange):
    staying = exchange("direct", auto_delete=True)
    channel.exchange_bind(staying, "amq.fanout", "")
    channel.exchange_unbind(staying, "amq.fanout", "")
    channel.exchange_declare(staying, passive=True)


def test_auto_delete_cascades_through_exchange_bindings(channel, exchange, bound):
    """source -> destination -> queue: when the queue goes, the destination goes, and with it the source."""
    source, destination = exchange("fanout", auto_delete=True), exchange("fanout", auto_delete=True)
    channel.exchange_bind(destination, source)
    channel.queue_delete(bound(destination))
    with channel_closed(404, missing(source)):
        channel.exchange_declare(source, passive=True)


def test_publishing_to_an_internal_exchange_is_403(channel, exchange):
    internal = exchange("fanout", internal=True)
    text = f"ACCESS_REFUSED - cannot publish to internal exchange '{internal}' in vhost '/'"
    with channel_closed(403, text):
        publish(channel, internal, "key")


def test_an_internal_exchange_is_reached_through_a_binding(channel, exchange, bound):
    internal, front = exchange("fanout", internal=True), exchange("fanout")
    queue = bound(internal)
    channel.exchange_bind(internal, front)
    publish(channel, front, "", b"through")
    assert drain(channel, queue) == [b"through"]


def test_binding_with_a_missing_side_is_404(connection, exchange):
    there = exchange("direct")
    with channel_closed(404, missing("no-such-source")):
        connection.channel().exchange_bind(there, "no-such-source")
    with channel_closed(404, missing("no-such-destination")):
        connection.channel().exchange_bind("no-such-destination", there)


def test_unbinding_what_is_not_bound_succeeds(channel, exchange):
    there = exchange("direct")
    channel.exchange_unbind(there, "amq.fanout", "never-bound")
    channel.exchange_unbind(there, "no-such-source", "never-bound")

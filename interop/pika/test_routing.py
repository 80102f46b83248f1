"""Which queues a message reaches: the exchange types, exchange bindings, alternate exchanges, CC and BCC."""

import pytest
from pika.exceptions import UnroutableError

from support import channel_closed, drain, publish


@pytest.mark.smoke
def test_the_default_exchange_routes_by_queue_name(channel, queue):
    publish(channel, "", queue, b"1")
    publish(channel, "", queue + ".other", b"2")
    assert drain(channel, queue) == [b"1"]


@pytest.mark.smoke
def test_direct_routes_to_every_queue_of_the_key(channel, exchange, bound):
    direct = exchange("direct")
    first, second, other = bound(direct, "key"), bound(direct, "key"), bound(direct, "other")
    channel.queue_bind(first, direct, "another")
    publish(channel, direct, "key", b"1")
    publish(channel, direct, "another", b"2")
    publish(channel, direct, "ke", b"3")
    assert (drain(channel, first), drain(channel, second), drain(channel, other)) == ([b"1", b"2"], [b"1"], [])


def test_fanout_ignores_the_key(channel, exchange, bound):
    fanout = exchange("fanout")
    first, second = bound(fanout, "a"), bound(fanout, "b")
    channel.queue_bind(first, fanout, "twice bound, once delivered")
    publish(channel, fanout, "whatever")
    assert (len(drain(channel, first)), len(drain(channel, second))) == (1, 1)


@pytest.mark.parametrize(
    "pattern, matching, others",
    [
        ("a.b.c", ["a.b.c"], ["a.b", "a.b.c.d", "a.B.c", ""]),
        ("*.b.*", ["a.b.c", "x.b.y", ".b."], ["b", "a.b", "a.b.c.d", "a.c.b"]),
        ("a.#", ["a", "a.b", "a.b.c", "a."], ["b.a", "", "ab"]),
        ("#.c", ["c", "a.c", "a.b.c"], ["c.a", "abc", ""]),
        ("a.#.c", ["a.c", "a.b.c", "a.b.b.c"], ["a", "c", "a.b", "a.c.d"]),
        ("#", ["", "a", "a.b.c", "..."], []),
        # An empty key has no words at all; a key of one dot has two empty ones.
        ("*", ["a"], ["", "a.b", "."]),
        ("*.*", ["a.b", "."], ["a", "a.b.c"]),
        ("#.*", ["a", "a.b", "a.b.c"], []),
        ("*.#", ["a", "a.b.c"], []),
        ("", [""], ["a"]),
        ("lazy.#", ["lazy", "lazy.orange.fox"], ["quick.orange.fox", "lazyfox"]),
    ],
)
def test_topic_patterns(channel, exchange, bound, pattern, matching, others):
    topic = exchange("topic")
    queue = bound(topic, pattern)
    for key in matching + others:
        publish(channel, topic, key, key.encode())
    assert drain(channel, queue) == [key.encode() for key in matching]


@pytest.mark.smoke
def test_topic_delivers_once_to_a_queue_with_several_matching_bindings(channel, exchange, bound):
    topic = exchange("topic")
    queue = bound(topic, "a.#")
    channel.queue_bind(queue, topic, "#.b")
    publish(channel, topic, "a.b")
    assert len(drain(channel, queue)) == 1
    channel.queue_unbind(queue, topic, "a.#")
    publish(channel, topic, "a.c")
    publish(channel, topic, "x.b")
    assert len(drain(channel, queue)) == 1


@pytest.mark.parametrize(
    "arguments, headers, matches",
    [
        ({"x-match": "all", "a": 1, "b": "x"}, {"a": 1, "b": "x", "c": True}, True),
        ({"x-match": "all", "a": 1, "b": "x"}, {"a": 1}, False),
        ({"x-match": "all", "a": 1, "b": "x"}, {"a": 1, "b": "y"}, False),
        ({"x-match": "any", "a": 1, "b": "x"}, {"a": 2, "b": "x"}, True),
        ({"x-match": "any", "a": 1, "b": "x"}, {"a": 2, "b": "y"}, False),
        ({"x-match": "any", "a": 1, "b": "x"}, {}, False),
        # Without x-match it is "all".
        ({"a": 1, "b": "x"}, {"a": 1, "b": "x"}, True),
        ({"a": 1, "b": "x"}, {"b": "x"}, False),
        # Keys that begin with x- count only with the -with-x modes.
        ({"x-match": "all", "a": 1, "x-b": 2}, {"a": 1}, True),
        ({"x-match": "all-with-x", "a": 1, "x-b": 2}, {"a": 1}, False),
        ({"x-match": "all-with-x", "a": 1, "x-b": 2}, {"a": 1, "x-b": 2}, True),
        ({"x-match": "any", "a": 1, "x-b": 2}, {"x-b": 2}, False),
        ({"x-match": "any-with-x", "a": 1, "x-b": 2}, {"x-b": 2}, True),
        ({"x-match": "any-with-x", "a": 1, "x-b": 2}, {"x-b": 3}, False),
        # A void value asks only for presence.
        ({"x-match": "all", "a": None}, {"a": "anything"}, True),
        ({"x-match": "all", "a": None}, {"b": "anything"}, False),
        # The comparison knows types.
        ({"x-match": "all", "a": 1}, {"a": "1"}, False),
        ({"x-match": "all", "a": True}, {"a": 1}, False),
        # Nothing to compare.
        ({"x-match": "all"}, {"a": 1}, True),
        ({"x-match": "any"}, {"a": 1}, False),
        ({}, {}, True),
    ],
)
def test_headers_matching(channel, exchange, bound, arguments, headers, matches):
    headers_exchange = exchange("headers")
    queue = bound(headers_exchange, "the key does not matter", arguments)
    publish(channel, headers_exchange, "", headers=headers)
    assert len(drain(channel, queue)) == (1 if matches else 0)


def test_headers_matching_without_any_headers(channel, exchange, bound):
    headers_exchange = exchange("headers")
    everything = bound(headers_exchange, "", {"x-match": "all"})
    something = bound(headers_exchange, "", {"x-match": "all", "a": 1})
    publish(channel, headers_exchange, "")
    assert (len(drain(channel, everything)), len(drain(channel, something))) == (1, 0)


def test_bindings_that_differ_only_in_arguments_live_side_by_side(channel, exchange, bound):
    headers_exchange = exchange("headers")
    queue = bound(headers_exchange, "", {"x-match": "all", "a": 1})
    channel.queue_bind(queue, headers_exchange, "", {"x-match": "all", "a": 2})
    publish(channel, headers_exchange, "", b"1", headers={"a": 1})
    publish(channel, headers_exchange, "", b"2", headers={"a": 2})
    assert drain(channel, queue) == [b"1", b"2"]
    channel.queue_unbind(queue, headers_exchange, "", {"x-match": "all", "a": 1})
    publish(channel, headers_exchange, "", b"1", headers={"a": 1})
    publish(channel, headers_exchange, "", b"2", headers={"a": 2})
    assert drain(channel, queue) == [b"2"]


@pytest.mark.parametrize(
    "value, text",
    [
        ("most", 'Invalid x-match field value <<"most">>; expected all, any, all-with-x, or any-with-x'),
        (1, "Invalid x-match field type signedint (value 1); expected longstr"),
    ],
)
def test_an_invalid_x_match_is_406(channel, queue, value, text):
    with channel_closed(406, f"PRECONDITION_FAILED - {text}"):
        channel.queue_bind(queue, "amq.headers", "", {"x-match": value})


def test_a_message_travels_through_exchange_bindings_with_its_key(channel, exchange, bound):
    front, back = exchange("topic"), exchange("direct")
    channel.exchange_bind(back, front, "a.#")
    queue = bound(back, "a.b")
    publish(channel, front, "a.b", b"1")
    publish(channel, front, "a.c", b"2")
    assert drain(channel, queue) == [b"1"]
    channel.exchange_unbind(back, front, "a.#")
    publish(channel, front, "a.b", b"3")
    assert drain(channel, queue) == []


def test_a_cycle_of_exchanges_delivers_once(channel, exchange, bound):
    first, second, third = exchange("fanout"), exchange("fanout"), exchange("fanout")
    channel.exchange_bind(second, first)
    channel.exchange_bind(third, second)
    channel.exchange_bind(first, third)
    queues = [bound(first), bound(second), bound(third)]
    channel.queue_bind(queues[0], second)
    publish(channel, third, "", b"round")
    assert [drain(channel, each) for each in queues] == [[b"round"]] * 3


def test_the_alternate_exchange_takes_what_finds_no_queue(channel, exchange, bound):
    rest = exchange("fanout")
    front = exchange("direct", arguments={"alternate-exchange": rest})
    known, unknown = bound(front, "known"), bound(rest)
    publish(channel, front, "known", b"1")
    publish(channel, front, "unknown", b"2")
    assert (drain(channel, known), drain(channel, unknown)) == ([b"1"], [b"2"])


def test_alternate_exchanges_form_chains_and_loops(channel, exchange, name, bound):
    last = name("last")
    middle = exchange("direct", arguments={"alternate-exchange": last})
    front = exchange("direct", arguments={"alternate-exchange": middle})
    channel.exchange_declare(last, "direct", arguments={"alternate-exchange": front})
    queue = bound(last, "key")
    publish(channel, front, "key", b"found at the end")
    publish(channel, front, "lost", b"found nowhere")
    assert drain(channel, queue) == [b"found at the end"]


@pytest.mark.smoke
def test_what_the_alternate_exchange_routes_is_not_returned(channel, exchange, bound):
    rest = exchange("fanout")
    front = exchange("direct", arguments={"alternate-exchange": rest})
    with pytest.raises(UnroutableError):
        publish(channel, front, "key", mandatory=True)
    queue = bound(rest)
    publish(channel, front, "key", b"routed", mandatory=True)
    assert drain(channel, queue) == [b"routed"]


def test_a_missing_alternate_exchange_leaves_a_message_unroutable(channel, exchange):
    front = exchange("direct", arguments={"alternate-exchange": "no-such-exchange"})
    with pytest.raises(UnroutableError):
        publish(channel, front, "key", mandatory=True)


def test_cc_and_bcc_add_routing_keys(channel, exchange, bound):
    direct = exchange("direct")
    to, cc, bcc = bound(direct, "to"), bound(direct, "cc"), bound(direct, "bcc")
    channel.queue_bind(to, direct, "cc")
    publish(channel, direct, "to", headers={"CC": ["cc"], "BCC": ["bcc"], "other": 1})
    for each in (to, cc, bcc):
        method, properties, _ = channel.basic_get(each, auto_ack=True)
        assert method.routing_key == "to"
        assert properties.headers == {"CC": ["cc"], "other": 1}
        assert drain(channel, each) == [], "once only"


def test_a_cc_header_that_is_not_an_array_is_406(channel):
    text = 'PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}'
    with channel_closed(406, text):
        publish(channel, "amq.direct", "to", headers={"CC": "cc"})


@pytest.mark.parametrize("word", ["ünïcode.ключ", "with space", "x" * 255])
def test_keys_are_text_of_any_kind(channel, exchange, bound, word):
    topic = exchange("topic")
    queue = bound(topic, word)
    publish(channel, topic, word, b"1")
    method, _, _ = channel.basic_get(queue, auto_ack=True)
    assert (method.exchange, method.routing_key) == (topic, word)

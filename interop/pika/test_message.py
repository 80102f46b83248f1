"""What a message carries arrives as it was sent: bodies of any size, every property, headers of every type."""

import datetime
import decimal
import os

import pika
import pytest

from support import Inbox, publish

# pika's own overhead in a body frame: type, channel, size and the end octet.
FRAME_OVERHEAD = 8
FRAME_MAX = 131072


def round_trip(channel, queue, body=b"", **properties):
    inbox = Inbox(channel, queue, auto_ack=True)
    publish(channel, "", queue, body, **properties)
    [(_, received, received_body)] = inbox.wait(1)
    return received, received_body


@pytest.mark.smoke
@pytest.mark.parametrize(
    "size",
    [0, 1, FRAME_MAX - FRAME_OVERHEAD, FRAME_MAX - FRAME_OVERHEAD + 1, 2 * FRAME_MAX, 1_000_003, 5 * 1024 * 1024],
)
def test_bodies_of_any_size(channel, queue, size):
    body = os.urandom(size)
    assert round_trip(channel, queue, body)[1] == body


def test_large_messages_from_several_channels_do_not_mix(connection, queue):
    """Frames of different channels are interleaved on the connection; the bodies are not."""
    bodies = [bytes([number]) * 1_000_000 for number in range(8)]
    publishing = [connection.channel() for _ in bodies]
    inbox = Inbox(connection.channel(), queue, auto_ack=True)
    for channel, body in zip(publishing, bodies):
        publish(channel, "", queue, body)
    inbox.wait(len(bodies))
    assert sorted(inbox.bodies) == bodies


@pytest.mark.smoke
def test_every_property(channel, queue):
    sent = {
        "content_type": "application/json",
        "content_encoding": "gzip",
        "headers": {"k": "v"},
        "delivery_mode": 2,
        "priority": 7,
        "correlation_id": "correlation",
        "reply_to": "reply.here",
        "expiration": "600000",
        "message_id": "message",
        "timestamp": 1700000000,
        "type": "kind.of.message",
        "user_id": "guest",
        "app_id": "interop",
        "cluster_id": "cluster",
    }
    received, _ = round_trip(channel, queue, b"all of them", **sent)
    assert {name: getattr(received, name) for name in sent} == sent


def test_no_property_at_all(channel, queue):
    received, body = round_trip(channel, queue, b"bare")
    assert (received, body) == (pika.BasicProperties(), b"bare")


def test_properties_that_are_empty_or_zero_are_there(channel, queue):
    sent = {"content_type": "", "headers": {}, "priority": 0, "correlation_id": "", "timestamp": 0}
    received, _ = round_trip(channel, queue, **sent)
    assert {name: getattr(received, name) for name in sent} == sent


def test_headers_of_every_type_that_pika_writes(channel, queue):
    headers = {
        "long string": "text",
        "unicode": "grüße, мир, 世界",
        "empty": "",
        "bytes": b"\x00\x01\xfe\xff",
        "true": True,
        "false": False,
        "int": -42,
        "long": 2**40,
        "least": -(2**63),
        "decimal": decimal.Decimal("3.14"),
        "time": datetime.datetime(2024, 2, 29, 12, 30, 45, tzinfo=datetime.timezone.utc),
        "table": {"nested": {"deeper": [1, {"deepest": None}]}, "empty": {}},
        "array": [1, "two", True, None, [3, [4]], {"five": 5}],
        "empty array": [],
        "void": None,
    }
    received, _ = round_trip(channel, queue, headers=headers)
    assert received.headers == headers


def test_a_thousand_headers(channel, queue):
    headers = {f"header-{number:04}": "v" * 50 for number in range(1000)}
    received, _ = round_trip(channel, queue, headers=headers)
    assert received.headers == headers
    assert list(received.headers) == list(headers), "in the order in which they were sent"


def test_a_deep_header(channel, queue):
    headers = {"end": "here"}
    for _ in range(50):
        headers = {"inner": headers}
    assert round_trip(channel, queue, headers=headers)[0].headers == headers


@pytest.mark.parametrize("word", ["ünïcode ключ 世界", "with space/and?signs", "n" * 255])
def test_names_are_text_of_any_kind(channel, word):
    channel.queue_delete(word)
    assert channel.queue_declare(word, exclusive=True).method.queue == word
    assert round_trip(channel, word, b"arrives")[1] == b"arrives"


@pytest.mark.parametrize("delivery_mode", [None, 1, 2])
def test_the_delivery_mode_is_what_was_sent(channel, queue, delivery_mode):
    assert round_trip(channel, queue, delivery_mode=delivery_mode)[0].delivery_mode == delivery_mode


def test_ten_thousand_messages_keep_their_order(connection, queue):
    publishing, consuming = connection.channel(), connection.channel()
    consuming.basic_qos(prefetch_count=500)
    inbox = Inbox(consuming, queue)
    for number in range(10_000):
        publish(publishing, "", queue, b"%d" % number)
        if number % 400 == 399:
            connection.process_data_events(time_limit=0)
            consuming.basic_ack(0, multiple=True)
    while len(inbox.messages) < 10_000:
        inbox.wait(len(inbox.messages) + 1)
        consuming.basic_ack(0, multiple=True)
    assert inbox.bodies == [b"%d" % number for number in range(10_000)]
    assert inbox.delivery_tags == list(range(1, 10_001))

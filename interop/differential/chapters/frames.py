"""Frames that are wrong, and methods that are."""

import struct

import amqp
from amqp import As
from conversation import conversation, conversations


def publish_to(channel):
    channel.send("basic.publish", exchange="", routing_key="nowhere")


@conversations(
    {
        "octet 0": (0,),
        "octet 1": (1,),
        "octet 255": (255,),
        "octet of the next frame": (0xCD,),
    }
)
def wrong_end(broker, end):
    channel = broker.channel()
    channel.frame(amqp.METHOD, amqp.method_payload("channel.flow", {"active": True}), f"channel.flow that ends with {end}", end)
    channel.connection.ended()


@conversations({f"type {kind}, {size} octets": (kind, size) for kind in (0, 4, 5, 7, 9, 65, 255) for size in (0, 3)} | {"long": (9, 40)})
def unknown_frame_type(broker, kind, size):
    channel = broker.channel()
    channel.frame(kind, bytes(range(size)), f"frame of type {kind}, {size} octets")
    channel.connection.ended()


@conversations(
    {
        "body": (amqp.BODY, 131065),
        "header": (amqp.HEADER, 140000),
    }
)
def frame_too_large(broker, kind, size):
    channel = broker.channel()
    channel.frame(kind, b"x" * size, f"frame of type {kind}, {size} octets")
    channel.connection.ended()


@conversation
def frame_too_large_for_what_was_negotiated(broker):
    channel = broker.channel(frame_max=8192)
    channel.frame(amqp.HEADER, b"x" * 8193, "header frame of 8193 octets")
    channel.connection.ended()


@conversation
def largest_frame(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.confirm()
    channel.put("", broker.name("q"), b"x" * (131072 - 8))
    channel.get(broker.name("q"))


@conversations({"0": (0,), "1": (1,), "2047": (2047,)})
def heartbeat_on_channel(broker, number):
    channel = broker.channel()
    channel.connection.note(number, "> heartbeat")
    channel.connection.write(amqp.frame(amqp.HEARTBEAT, number, b""))
    channel.sync()
    channel.count("amq.nothing")


@conversation
def heartbeat_with_a_payload(broker):
    channel = broker.channel()
    channel.connection.zero.frame(amqp.HEARTBEAT, b"abc", "heartbeat with 3 octets")
    channel.sync()
    channel.count("amq.nothing")


@conversations(
    {
        "header on channel 0": (0, amqp.HEADER, amqp.header_payload(0, {})),
        "body on channel 0": (0, amqp.BODY, b"abc"),
        "header on a channel that is not open": (5, amqp.HEADER, amqp.header_payload(0, {})),
        "body on a channel that is not open": (5, amqp.BODY, b"abc"),
        "header without a method": (1, amqp.HEADER, amqp.header_payload(0, {})),
        "body without a method": (1, amqp.BODY, b"abc"),
        "empty body without a method": (1, amqp.BODY, b""),
        "long body without a method": (1, amqp.BODY, b"abcdefghijklmnopqrstuvwxyz"),
        "header of 4 octets on channel 0": (0, amqp.HEADER, b"\0\x3c\0\0"),
        "header of 4 octets on a channel that is not open": (5, amqp.HEADER, b"\0\x3c\0\0"),
        "header of 4 octets without a method": (1, amqp.HEADER, b"\0\x3c\0\0"),
        "header of 12 octets without a method": (1, amqp.HEADER, b"\0\x3c\0\0\0\0\0\0\0\0\0\0"),
    }
)
def unexpected(broker, number, kind, payload):
    connection = broker.connect()
    connection.channel()
    connection.note(number, f"> frame of type {kind}, {len(payload)} octets")
    connection.write(amqp.frame(kind, number, payload))
    connection.ended()


@conversations(
    {
        "a method": (amqp.METHOD, amqp.method_payload("queue.declare", {"queue": "q"})),
        "another publish": (amqp.METHOD, amqp.method_payload("basic.publish", {"routing_key": "q"})),
        "a body": (amqp.BODY, b"abc"),
        "a header of class 90": (amqp.HEADER, amqp.header_payload(0, {}, 90)),
        "a header of class 10": (amqp.HEADER, amqp.header_payload(0, {}, 10)),
        "channel.close": (amqp.METHOD, amqp.method_payload("channel.close", {"reply_code": 200})),
        "a header of 3 octets": (amqp.HEADER, b"\0\x3c\0"),
        "an empty header": (amqp.HEADER, b""),
        "a header of weight 1": (amqp.HEADER, struct.pack(">HHQH", 60, 1, 0, 0)),
        "a header that ends in its properties": (amqp.HEADER, struct.pack(">HHQH", 60, 0, 0, 0x8000)),
        "a header that goes on after its properties": (amqp.HEADER, struct.pack(">HHQH", 60, 0, 0, 0) + b"xyz"),
        "a header with a second word of flags": (amqp.HEADER, struct.pack(">HHQHH", 60, 0, 0, 1, 0)),
        "a header with flag 1": (amqp.HEADER, struct.pack(">HHQH", 60, 0, 0, 2)),
    }
)
def instead_of_a_header(broker, kind, payload):
    channel = broker.channel()
    publish_to(channel)
    channel.frame(kind, payload, f"frame of type {kind}, {len(payload)} octets")
    channel.connection.note(1, "> channel.flow")
    channel.connection.write(amqp.method(1, "channel.flow", active=True))
    channel.reply({"channel.flow-ok"})


@conversations(
    {
        "a method": (amqp.METHOD, amqp.method_payload("queue.declare", {"queue": "q"})),
        "a header": (amqp.HEADER, amqp.header_payload(0, {})),
        "more than announced": (amqp.BODY, b"x" * 11),
        "more than announced in the second frame": (amqp.BODY, b"x" * 6, b"x" * 6),
        "nothing, then a method": (amqp.BODY, b"", None),
        "channel.close": (amqp.METHOD, amqp.method_payload("channel.close", {"reply_code": 200})),
    }
)
def instead_of_a_body(broker, kind, *payloads):
    channel = broker.channel()
    publish_to(channel)
    channel.frame(amqp.HEADER, amqp.header_payload(10, {}), "header for 10 octets")
    for payload in payloads:
        if payload is None:
            channel.frame(amqp.METHOD, amqp.method_payload("channel.flow", {}), "channel.flow")
        else:
            channel.frame(kind, payload, f"frame of type {kind}, {len(payload)} octets")
    channel.connection.ended()


@conversations({"512 MiB + 1": (536870913,), "2^63": (2**63,), "2^64 - 1": (2**64 - 1,), "16 MiB + 1": (16777217,)})
def body_announced_too_large(broker, size):
    channel = broker.channel()
    publish_to(channel)
    channel.frame(amqp.HEADER, amqp.header_payload(size, {}), f"header for {size} octets")
    channel.sync()


@conversation
def body_of_many_frames(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.confirm()
    channel.send("basic.publish", exchange="", routing_key=broker.name("q"))
    channel.frame(amqp.HEADER, amqp.header_payload(6, {"priority": 0}), "header for 6 octets")
    for part in (b"ab", b"", b"c", b"", b"def"):
        channel.frame(amqp.BODY, part, f"body {part!r}")
    channel.confirms(1)
    channel.get(broker.name("q"))


@conversations(
    {
        "class 70": (struct.pack(">HH", 70, 10),),
        "class 0": (struct.pack(">HH", 0, 0),),
        "class 65535": (struct.pack(">HH", 65535, 65535),),
        "queue.99": (struct.pack(">HH", 50, 99),),
        "exchange.41": (struct.pack(">HH", 40, 41),),
        "basic.121": (struct.pack(">HH", 60, 121),),
        "nothing": (b"",),
        "one octet": (b"\0",),
        "three octets": (b"\0\x32\0",),
    }
)
def unknown_method(broker, payload):
    channel = broker.channel()
    channel.frame(amqp.METHOD, payload, f"method {payload!r}")
    channel.connection.ended()


@conversations(
    {
        "queue.declare without arguments": (struct.pack(">HH", 50, 10),),
        "queue.declare cut": (amqp.method_payload("queue.declare", {"queue": "abc"})[:-3],),
        "queue.declare longer": (amqp.method_payload("queue.declare", {"queue": "abc"}) + b"xyz",),
        "basic.ack cut": (struct.pack(">HHI", 60, 80, 1),),
        "basic.ack longer": (amqp.method_payload("basic.ack", {"delivery_tag": 1}) + b"x",),
        "queue.declare, name not UTF-8": (amqp.method_payload("queue.declare", {"queue": b"\xff\xfe"}),),
        "queue.declare, passive, name not UTF-8": (amqp.method_payload("queue.declare", {"queue": b"a\xc3", "passive": True}),),
        "basic.publish, key not UTF-8": (amqp.method_payload("basic.publish", {"routing_key": b"\xff"}),),
        "exchange.declare, type not UTF-8": (amqp.method_payload("exchange.declare", {"type": b"\xff"}),),
        "channel.close, text not UTF-8": (amqp.method_payload("channel.close", {"reply_text": b"\xff"}),),
        "unknown field type z": (amqp.method_payload("queue.declare", {"queue": "abc", "arguments": {"k": As("z", b"1234")}}),),
        "unknown field type U": (amqp.method_payload("queue.declare", {"queue": "abc", "arguments": {"k": As("U", b"1234")}}),),
        "argument key not UTF-8": (amqp.method_payload("queue.declare", {"queue": "abc", "arguments": {b"\xff": 1}}),),
        "table longer than the frame": (amqp.method_payload("queue.declare", {"queue": "abc"})[:-4] + b"\0\0\0\x09",),
    }
)
def malformed_method(broker, payload):
    channel = broker.channel()
    channel.frame(amqp.METHOD, payload, f"method {payload!r}")
    channel.connection.note(1, "> channel.flow")
    channel.connection.write(amqp.method(1, "channel.flow", active=True))
    channel.reply({"channel.flow-ok"})


FROM_THE_BROKER = (
    "channel.open-ok", "channel.flow-ok", "exchange.declare-ok", "exchange.bind-ok", "queue.declare-ok", "queue.bind-ok",
    "basic.qos-ok", "basic.consume-ok", "basic.cancel-ok", "basic.get-empty", "basic.recover-ok", "confirm.select-ok", "tx.select-ok",
    "tx.commit-ok",
)  # fmt: skip


@conversations({name: (name,) for name in FROM_THE_BROKER})
def method_of_the_broker(broker, name):
    channel = broker.channel()
    channel.send(name)
    channel.sync()


@conversations({name: (name,) for name in ("basic.deliver", "basic.return", "basic.get-ok")})
def content_of_the_broker(broker, name):
    channel = broker.channel()
    channel.send(name)
    channel.frame(amqp.HEADER, amqp.header_payload(0, {}), "header")
    channel.sync()


@conversations({name: (name,) for name in ("connection.open", "connection.close-ok", "connection.start-ok", "connection.tune-ok", "connection.update-secret")})
def connection_method_on_a_channel(broker, name):
    channel = broker.channel()
    channel.send(name)
    channel.connection.ended()


@conversations(
    {
        kind: (As(kind, value),)
        for kind, value in {
            "t": True, "b": -3, "B": 200, "s": -300, "u": 60000, "I": -(2**31), "i": 2**32 - 1, "l": -(2**60), "L": 2**60, "f": 0.5,
            "d": 1.25, "D": (3, 12345), "S": "täxt", "x": b"\0\xff", "T": 1700000000, "F": {"a": 1, "b": {"c": "d"}},
            "A": [1, "two", [3.5], {"four": 4}], "V": None,
        }.items()
    }
    | {"L above 2^63": (As("L", 2**64 - 5),), "empty table": ({},), "empty array": ([],), "S not UTF-8": (As("S", b"\xff"),), "nan": (float("nan"),)}
)  # fmt: skip
def header_field_type(broker, value):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.confirm()
    channel.put("", broker.name("q"), "x", headers={"k": value})
    channel.get(broker.name("q"))


@conversation
def all_properties(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.confirm()
    channel.put(
        "", broker.name("q"), "x", content_type="text/plain", content_encoding="utf-8", headers={}, delivery_mode=1, priority=0,
        correlation_id="", reply_to="somewhere", expiration="60000", message_id="m", timestamp=1700000000, type="t", user_id="guest",
        app_id="a", cluster_id="c",
    )  # fmt: skip
    channel.get(broker.name("q"))


@conversations({str(mode): (mode,) for mode in (0, 1, 2, 3, 255)})
def delivery_mode(broker, mode):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.confirm()
    channel.put("", broker.name("q"), "x", delivery_mode=mode)
    channel.get(broker.name("q"))


@conversation
def access_request(broker):
    broker.channel().call("access.request", realm="/data", active=True)


@conversation
def timestamp_beyond_63_bits(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.confirm()
    channel.put("", broker.name("q"), "x", timestamp=2**64 - 1)
    channel.get(broker.name("q"))

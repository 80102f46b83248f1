"""What a client sends on a channel that the broker has closed, before it has heard of it: a pipelining one cannot help it."""

import struct

import amqp
from conversation import conversation, conversations

HEADER_OF_1 = ("header", amqp.header_payload(1, {}), "content header, size 1")
HEADER_OF_2 = ("header", amqp.header_payload(2, {}), "content header, size 2")
HEADER_OF_0 = ("header", amqp.header_payload(0, {}), "content header, size 0")
HEADER_OF_QUEUE = ("header", amqp.header_payload(0, {}, 50), "content header of class 50")
HEADER_CUT_OFF = ("header", struct.pack(">HHQH", 60, 0, 0, 0x8000), "content header that ends in its properties")
HEADER_TOO_LONG = ("header", amqp.header_payload(0, {}) + b"xyz", "content header that goes on after its properties")
HEADER_OF_WEIGHT_1 = ("header", struct.pack(">HHQH", 60, 1, 0, 0), "content header of weight 1")
HEADER_TOO_SHORT = ("header", b"\0\x3c\0\0", "content header of 4 octets")
HEADER_TOO_LARGE = ("header", amqp.header_payload(2**63, {}), "content header, size 2^63")
HEADER_OF_17_MIB = ("header", amqp.header_payload(17 << 20, {}), "content header, size 17 MiB, and its body")
BODY = ("body", b"x", "content body")
EMPTY_BODY = ("body", b"", "content body, empty")
HEARTBEAT = ("heartbeat", b"", "heartbeat")
PUBLISH = ("basic.publish", {"routing_key": "k"})
IMMEDIATE = ("basic.publish", {"routing_key": "k", "immediate": True})
NOWHERE = ("basic.publish", {"exchange": "there is none", "routing_key": "k"})
MANDATORY = ("basic.publish", {"routing_key": "nobody", "mandatory": True})
ACK = ("basic.ack", {"delivery_tag": 1})
UNKNOWN_ACK = ("basic.ack", {"delivery_tag": 77})
OPEN = ("channel.open", {})
CLOSE = ("channel.close", {"reply_code": 200})
CLOSE_OK = ("channel.close-ok", {})
FLOW = ("channel.flow", {"active": True})
NO_FLOW = ("channel.flow", {"active": False})
QOS = ("basic.qos", {"prefetch_count": 1})
PASSIVE = ("queue.declare", {"queue": "there is none", "passive": True})
CONSUME = ("basic.consume", {"queue": "there is none"})
GET = ("basic.get", {"queue": "there is none"})
CONFIRM = ("confirm.select", {})
TX = ("tx.select", {})
COMMIT = ("tx.commit", {})
OF_THE_BROKER = ("queue.declare-ok", {"queue": "q"})
MALFORMED = ("method", b"\0\x3c\0\x50\0", "basic.ack, cut off")
CONNECTION_CLOSE = ("connection.close", {"reply_code": 200})

KINDS = {"method": amqp.METHOD, "header": amqp.HEADER, "body": amqp.BODY, "heartbeat": amqp.HEARTBEAT}


def data(channel, step) -> bytes:
    """One frame; notes it."""
    name, *rest = step
    if name in KINDS:
        if rest[1]:
            channel.note(f"> {rest[1]}")
        return amqp.frame(KINDS[name], channel.number, rest[0])
    channel.note(f"> {name} {channel.arguments(rest[0])}".rstrip())
    return amqp.method(channel.number, name, **rest[0])


def say(channel, *steps) -> None:
    """Frames in one packet."""
    channel.connection.write(b"".join(data(channel, step) for step in steps))


def hear(channel) -> bool:
    """Notes what comes, and answers nothing, until the channel has answered what it is asked last; whether it has."""
    say(channel, CLOSE)
    while item := channel.next():
        channel.note(f"< {item[0]} {channel.arguments(item[1])}".rstrip())
        if item[0] == "channel.close-ok":
            return True
    channel.missing()
    return False


def closed_by_the_broker(broker):
    """A channel that has been closed, which its client has not answered."""
    channel = broker.channel()
    say(channel, PASSIVE)
    name, values, *_ = channel.next()
    channel.note(f"< {name} {channel.arguments(values)}")
    return channel


def goes_on(channel) -> None:
    """The number can be used again."""
    say(channel, CLOSE_OK)
    channel.closed = False
    channel.call("channel.open")
    channel.call("queue.declare", queue="there is none", passive=True)


# It goes on as if nothing had been said.
IGNORED = {
    "nothing": (),
    "publish": (PUBLISH, HEADER_OF_1, BODY),
    "publish in parts": (PUBLISH, HEADER_OF_2, BODY, EMPTY_BODY, BODY),
    "empty publish": (PUBLISH, HEADER_OF_0),
    "two publishes": (PUBLISH, HEADER_OF_1, BODY, PUBLISH, HEADER_OF_1, BODY),
    "immediate": (IMMEDIATE, HEADER_OF_0),
    "nowhere": (NOWHERE, HEADER_OF_0),
    "mandatory": (MANDATORY, HEADER_OF_0),
    "publish, header that ends in its properties": (PUBLISH, HEADER_CUT_OFF),
    "publish, header that goes on": (PUBLISH, HEADER_TOO_LONG),
    "publish above the limit": (PUBLISH, HEADER_OF_17_MIB) + (("body", bytes(1 << 16), ""),) * (17 * 16),
    "ack": (ACK,),
    "unknown ack": (UNKNOWN_ACK,),
    "nack": (("basic.nack", {"delivery_tag": 1}),),
    "reject": (("basic.reject", {"delivery_tag": 1}),),
    "recover": (("basic.recover", {"requeue": True}),),
    "flow": (FLOW,),
    "no flow": (NO_FLOW,),
    "qos": (QOS,),
    "passive": (PASSIVE,),
    "consume": (CONSUME,),
    "cancel": (("basic.cancel", {"consumer_tag": "t"}),),
    "get": (GET,),
    "confirm": (CONFIRM,),
    "tx": (TX,),
    "commit": (COMMIT,),
    "method of the broker": (OF_THE_BROKER,),
    "connection.close": (CONNECTION_CLOSE,),
    "close": (CLOSE,),
    "close, publish": (CLOSE, PUBLISH, HEADER_OF_1, BODY),
}
# It ends the connection.
WRONG = {
    "header": (HEADER_OF_1,),
    "empty header": (HEADER_OF_0,),
    "short header": (HEADER_TOO_SHORT,),
    "body": (BODY,),
    "empty body": (EMPTY_BODY,),
    "heartbeat": (HEARTBEAT,),
    "publish and no header": (PUBLISH, BODY),
    "publish and a method": (PUBLISH, ACK),
    "publish and close": (PUBLISH, CLOSE),
    "publish and close-ok": (PUBLISH, CLOSE_OK),
    "publish and heartbeat": (PUBLISH, HEARTBEAT),
    "publish, header and a method": (PUBLISH, HEADER_OF_1, ACK),
    "publish, header and a header": (PUBLISH, HEADER_OF_1, HEADER_OF_1),
    "publish, header and a short header": (PUBLISH, HEADER_OF_1, HEADER_TOO_SHORT),
    "publish, header and close-ok": (PUBLISH, HEADER_OF_1, CLOSE_OK),
    "publish, empty header and body": (PUBLISH, HEADER_OF_0, BODY),
    "publish, too much body": (PUBLISH, HEADER_OF_1, ("body", b"xy", "content body of 2 octets")),
    "publish, header of another class": (PUBLISH, HEADER_OF_QUEUE),
    "publish, header of weight 1": (PUBLISH, HEADER_OF_WEIGHT_1),
    "publish, short header": (PUBLISH, HEADER_TOO_SHORT),
    "publish, header too large": (PUBLISH, HEADER_TOO_LARGE),
    "open": (OPEN,),
    "close, open": (CLOSE, OPEN),
    "malformed method": (MALFORMED,),
}


@conversations(IGNORED | WRONG)
def closed_by_the_broker_then(broker, *steps):
    channel = closed_by_the_broker(broker)
    say(channel, *steps)
    if hear(channel):
        goes_on(channel)


@conversations({name: steps for name, steps in IGNORED.items() if steps[:1] == (PUBLISH,)} | {"open": (OPEN,)})
def right_behind_what_the_broker_closed_for(broker, *steps):
    channel = broker.channel()
    say(channel, PASSIVE, *steps)
    if hear(channel):
        goes_on(channel)


@conversations(
    {
        "header": (HEADER_OF_1,),
        "body": (BODY,),
        "method": (FLOW,),
        "publish": (PUBLISH, HEADER_OF_0),
        "close": (CLOSE,),
        "close-ok": (CLOSE_OK,),
        "open, header": (OPEN, HEADER_OF_1),
    }
)
def after_close_ok(broker, *steps):
    channel = closed_by_the_broker(broker)
    say(channel, CLOSE_OK)
    # The broker has it by now.
    channel.call("channel.open")
    channel.call("channel.close")
    say(channel, *steps)
    channel.connection.ended()


@conversations({"header": (HEADER_OF_1,), "body": (BODY,), "publish, body": (PUBLISH, BODY)})
def behind_ones_own_close(broker, *steps):
    channel = broker.channel()
    say(channel, CLOSE, *steps)
    # Whether close-ok comes first is left open.
    channel.connection.ended()


@conversation
def who_pipelines_loses_the_channel_alone(broker):
    channel = broker.channel()
    other = channel.connection.channel()
    other.declare(broker.name("q"))
    publish = amqp.method(channel.number, "basic.publish", exchange="there is none") + amqp.content(channel.number, b"x", {})
    right = amqp.method(channel.number, "basic.publish", routing_key=broker.name("q")) + amqp.content(channel.number, b"x", {})
    channel.note("> a publish to an exchange that does not exist, 5000 to a queue")
    channel.connection.write(publish + right * 5000)
    channel.read()
    channel.closed = False
    channel.call("channel.open")
    other.count(broker.name("q"))

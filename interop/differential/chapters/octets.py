"""Short strings that are no UTF-8: passed on where they are octets, refused where they are names."""

import re

from amqp import As
from conversation import conversation, conversations

NAMES = ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id", "cluster_id")


def ready(broker, arguments=None):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), arguments)
    return channel


@conversations({name: (name,) for name in NAMES})
def property(broker, name):
    channel = ready(broker)
    channel.put("", broker.name("q"), "m", **{name: b"\xff\xfe\0\x80"})
    channel.get(broker.name("q"))


@conversation
def all_properties(broker):
    channel = ready(broker)
    channel.put("", broker.name("q"), "m", headers={b"\xff": As("S", b"\xfe"), "x": As("x", b"\xfd")}, **dict.fromkeys(NAMES, b"\xff" * 255))
    channel.get(broker.name("q"))


@conversations({"expiration": ("expiration", b"1\xff"), "expiration, no digit": ("expiration", b"\xff"), "user_id": ("user_id", b"gu\xff")})
def property_with_a_meaning(broker, name, value):
    channel = ready(broker)
    channel.publish("", broker.name("q"), "m", **{name: value})
    channel.read()


@conversations({"topic": ("topic", "k.*.#"), "direct": ("direct", "k.a"), "fanout": ("fanout", "k.a")})
def routing_key(broker, kind, bound):
    channel = ready(broker)
    channel.exchange(broker.name("x"), kind)
    channel.bind(broker.name("q"), broker.name("x"), bound)
    for key in (b"k.a", b"k.\xff", b"k.\xc3.\xa9", b"k.\0.\x80", b"\xff", b"k\xff.a"):
        channel.put(broker.name("x"), key, "m", mandatory=True)
        channel.get(broker.name("q"))


@conversation
def routing_key_of_the_default_exchange(broker):
    ready(broker).put("", b"\xff", "m", mandatory=True)


@conversations({"empty": (b"",), "reply address": (b"amq.rabbitmq.reply-to.\xff",), "longest": (b"\xff" * 255,)})
def routing_key_that_nobody_knows(broker, key):
    ready(broker).put("amq.direct", key, "m", mandatory=True)


@conversation
def exchange_of_a_publish(broker):
    channel = ready(broker)
    channel.publish(b"no\xff", "k", "m")
    channel.read()


@conversations({mode: (mode,) for mode in ("all", "any", "all-with-x")})
def header_names(broker, mode):
    channel = ready(broker)
    channel.exchange(broker.name("x"), "headers")
    channel.bind(broker.name("q"), broker.name("x"), "", {"x-match": mode, b"\xff": As("S", b"\xfe"), b"x-\xff": 1})
    for headers in ({b"\xff": As("S", b"\xfe"), b"x-\xff": 1}, {b"\xff": As("S", b"\xfe")}, {b"\xfe": As("S", b"\xfe")}, {"ÿ": As("S", b"\xfe")}):
        channel.put(broker.name("x"), "", "m", mandatory=True, headers=headers)
        channel.get(broker.name("q"))


@conversations({"CC": ("CC",), "BCC": ("BCC",)})
def copies(broker, name):
    channel = ready(broker)
    channel.bind(broker.name("q"), "amq.topic", broker.name("t") + ".*")
    copy = broker.name("t").encode() + b".\xff"
    for keys in ([As("S", copy)], [As("S", b"\xff"), As("S", copy)], [As("S", b"k" * 256)], [As("x", copy)], [As("S", copy), 1]):
        channel.put("amq.topic", broker.name("none"), "m", mandatory=True, headers={name: keys})
        channel.get(broker.name("q"))


def timeless(broker):
    broker.lines = [re.sub(r"time=T:\d+", "time=T:now", line) for line in broker.lines]


@conversations({"its own": (None,), "of the queue": (b"k.\xfe",)})
def dead_letter_key(broker, key):
    channel = ready(broker)
    channel.exchange(broker.name("x"), "fanout")
    channel.bind(broker.name("q"), broker.name("x"))
    arguments = {"x-dead-letter-exchange": broker.name("x"), "x-message-ttl": 10}
    channel.declare(broker.name("source"), arguments | ({} if key is None else {"x-dead-letter-routing-key": As("S", key)}))
    channel.bind(broker.name("source"), "amq.topic", broker.name("t") + ".#")
    channel.put("amq.topic", broker.name("t").encode() + b".\xff", "m", headers={"CC": [As("S", b"\xfd")]}, correlation_id=b"\xff", expiration="5")
    channel.get_when_there(broker.name("q"))
    timeless(broker)


KEY, EXCHANGE = "x-dead-letter-routing-key", "x-dead-letter-exchange"


@conversations(
    {
        "exchange": ({EXCHANGE: As("S", b"\xff")},),
        "long exchange": ({EXCHANGE: "x" * 256},),
        "key": ({EXCHANGE: "", KEY: As("S", b"\xff")},),
        "long key": ({EXCHANGE: "", KEY: "k" * 256},),
        "key of octets": ({EXCHANGE: "", KEY: As("x", b"\xff")},),
        "exchange of octets": ({EXCHANGE: As("x", b"\xff")},),
        "key without exchange": ({KEY: As("S", b"\xff")},),
        "overflow": ({"x-overflow": As("S", b"\xff")},),
        "type": ({"x-queue-type": As("S", b"\xff")},),
        "locator": ({"x-queue-leader-locator": As("S", b"\xff")},),
        "unknown": ({b"\xff": As("S", b"\xfe")},),
    }
)
def queue_argument(broker, arguments):
    channel = broker.channel()
    channel.declare(broker.name("q"), arguments)
    if not channel.gone():
        channel.declare(broker.name("q"), arguments)


@conversations({"other octets": (As("S", b"\xfe"),), "the text they are shown as": ("ÿ",)})
def unequal_argument(broker, value):
    channel = broker.channel()
    channel.declare(broker.name("q"), {EXCHANGE: "", KEY: As("S", b"\xff")})
    channel.declare(broker.name("q"), {EXCHANGE: "", KEY: value})


@conversation
def alternate_exchange(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), "direct", {"alternate-exchange": As("S", b"\xff")})
    channel.put(broker.name("x"), "k", "m", mandatory=True)
    channel.exchange(broker.name("x"), "direct", {"alternate-exchange": As("S", b"\xfe")})


@conversation
def match_argument(broker):
    ready(broker).bind(broker.name("q"), "amq.headers", "", {"x-match": As("S", b"\xff")})


@conversations(
    {
        "queue.bind": ("queue.bind", {"queue": "q", "exchange": "amq.topic", "routing_key": b"\xff"}),
        "queue.unbind": ("queue.unbind", {"queue": "q", "exchange": "amq.topic", "routing_key": b"\xff"}),
        "exchange.bind": ("exchange.bind", {"destination": "amq.topic", "source": "amq.fanout", "routing_key": b"\xff"}),
        "exchange.declare": ("exchange.declare", {"exchange": b"\xff", "type": "direct"}),
        "exchange.delete": ("exchange.delete", {"exchange": b"\xff"}),
        "queue.delete": ("queue.delete", {"queue": b"\xff"}),
        "queue.purge": ("queue.purge", {"queue": b"\xff"}),
        "basic.get": ("basic.get", {"queue": b"\xff"}),
        "basic.consume": ("basic.consume", {"queue": b"\xff"}),
        "consumer tag": ("basic.consume", {"queue": "q", "consumer_tag": b"\xff"}),
        "basic.cancel": ("basic.cancel", {"consumer_tag": b"\xff"}),
    }
)
def name(broker, method, values):
    channel = broker.channel()
    channel.call(method, **values)
    channel.connection.ended()

"""Exchanges, queues, bindings: what is there, what is not, what differs."""

import time

from amqp import As
from conversation import conversation, conversations

PREDECLARED = ("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match")


@conversations({name: (name,) for name in PREDECLARED})
def predeclared_exchange(broker, name):
    channel = broker.channel()
    channel.call("exchange.declare", exchange=name, passive=True)
    channel.call("exchange.delete", exchange=name)


@conversations({"nonsense": ("nonsense",), "empty": ("",), "upper case": ("DIRECT",)})
def exchange_type(broker, kind):
    broker.channel().exchange(broker.name("x"), kind)


@conversations({"reserved": ("amq.mine",), "default": ("",), "trace": ("amq.rabbitmq.trace",)})
def exchange_name(broker, name):
    broker.channel().exchange(name, "direct")


@conversation
def line_ends_in_names(broker):
    channel = broker.channel()
    channel.exchange(broker.name("x\r\ny"), "direct")
    channel.call("exchange.declare", exchange=broker.name("xy"), passive=True)
    channel.declare(broker.name("q\nr"))
    channel.count(broker.name("qr"))


@conversation
def exchange_that_is_not_there(broker):
    channel = broker.channel()
    channel.call("exchange.delete", exchange=broker.name("x"))
    channel.call("exchange.declare", exchange=broker.name("x"), type="direct", passive=True)


@conversations(
    {
        "type": ({"type": "fanout"},),
        "durable": ({"durable": True},),
        "auto_delete": ({"auto_delete": True},),
        "internal": ({"internal": True},),
        "alternate": ({"arguments": {"alternate-exchange": "other"}},),
        "unknown argument": ({"arguments": {"x-any": 1}},),
        "passive with another type": ({"type": "fanout", "passive": True},),
        "the same": ({},),
    }
)
def exchange_again(broker, change):
    channel = broker.channel()
    channel.exchange(broker.name("x"), "direct")
    channel.call("exchange.declare", **({"exchange": broker.name("x"), "type": "direct"} | change))


@conversations({"int": (1,), "bool": (True,), "table": ({},), "empty": ("",)})
def alternate_exchange_of_type(broker, value):
    broker.channel().exchange(broker.name("x"), "direct", {"alternate-exchange": value})


@conversation
def alternate_exchange_again(broker):
    channel = broker.channel()
    channel.exchange(broker.name("x"), "direct", {"alternate-exchange": "a"})
    channel.exchange(broker.name("x"), "direct", {"alternate-exchange": "b"})


@conversation
def exchange_in_use(broker):
    channel = broker.channel()
    channel.exchange(broker.name("x"), "direct")
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), broker.name("x"), "k")
    channel.call("exchange.delete", exchange=broker.name("x"), if_unused=True)


@conversation
def exchange_deleted_unless_used(broker):
    channel = broker.channel()
    channel.exchange(broker.name("x"), "direct")
    channel.call("exchange.delete", exchange=broker.name("x"), if_unused=True)
    channel.call("exchange.declare", exchange=broker.name("x"), type="direct", passive=True)


@conversation
def exchange_goes_with_its_last_binding(broker):
    channel = broker.channel()
    channel.exchange(broker.name("x"), "fanout", auto_delete=True)
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), broker.name("x"))
    channel.call("queue.unbind", queue=broker.name("q"), exchange=broker.name("x"), routing_key="")
    channel.call("exchange.declare", exchange=broker.name("x"), type="fanout", passive=True)


@conversation
def exchange_goes_with_its_last_queue(broker):
    channel = broker.channel()
    channel.exchange(broker.name("x"), "fanout", auto_delete=True)
    channel.exchange(broker.name("y"), "fanout", auto_delete=True)
    channel.call("exchange.bind", destination=broker.name("x"), source=broker.name("y"))
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), broker.name("x"))
    channel.call("queue.delete", queue=broker.name("q"))
    channel.call("exchange.declare", exchange=broker.name("y"), type="fanout", passive=True)


@conversation
def internal_exchange(broker):
    channel = broker.channel()
    channel.exchange(broker.name("x"), "fanout", internal=True)
    channel.publish(broker.name("x"), "")
    channel.sync()


@conversation
def publish_to_no_exchange(broker):
    channel = broker.channel()
    channel.publish(broker.name("x"), "")
    channel.sync()


# ---- queues


@conversations({"reserved": ("amq.mine",), "generated": ("amq.gen-x",), "reply-to": ("amq.rabbitmq.reply-to",)})
def queue_name(broker, name):
    broker.channel().declare(name)


@conversation
def queue_named_by_the_server(broker):
    channel = broker.channel()
    name = channel.declare("", exclusive=True)[1]["queue"]
    channel.count("")
    channel.declare("", exclusive=True)
    channel.count(name)


@conversation
def last_queue_of_a_new_channel(broker):
    channel = broker.channel()
    channel.call("basic.get", queue="", no_ack=True)


@conversations({"bind": ("queue.bind", {"exchange": "amq.direct"}), "purge": ("queue.purge", {}), "delete": ("queue.delete", {}), "consume": ("basic.consume", {}), "passive": ("queue.declare", {"passive": True})})
def last_queue_unknown(broker, method, values):
    broker.channel().call(method, queue="", **values)


@conversations({"purge": ("queue.purge", {}), "consume": ("basic.consume", {}), "get": ("basic.get", {}), "passive": ("queue.declare", {"passive": True}), "bind": ("queue.bind", {"exchange": "amq.direct"}), "unbind": ("queue.unbind", {"exchange": "amq.direct"}), "delete": ("queue.delete", {})})
def queue_that_is_not_there(broker, method, values):
    broker.channel().call(method, queue=broker.name("q"), **values)


@conversations(
    {
        "durable": ({"durable": False},),
        "exclusive": ({"exclusive": True},),
        "auto_delete": ({"auto_delete": True},),
        "argument added": ({"arguments": {"x-max-length": 1}},),
        "unknown argument": ({"arguments": {"x-any": 1}},),
        "classic": ({"arguments": {"x-queue-type": "classic"}},),
        "quorum": ({"arguments": {"x-queue-type": "quorum"}},),
        "the same": ({},),
    }
)
def queue_again(broker, change):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.call("queue.declare", **({"queue": broker.name("q"), "durable": True} | change))


@conversations(
    {
        "int of another width": (As("l", 5),),
        "another int": (6,),
        "text": ("5",),
        "float": (5.0,),
        "none": (None,),
    }
)
def queue_argument_again(broker, value):
    channel = broker.channel()
    channel.declare(broker.name("q"), {"x-max-length": 5})
    channel.declare(broker.name("q"), {} if value is None else {"x-max-length": value})


@conversation
def exclusive_queue_of_another(broker):
    channel, other = broker.channel(), broker.channel()
    channel.declare(broker.name("q"), exclusive=True)
    other.declare(broker.name("q"), exclusive=True)


@conversations({"passive": ("queue.declare", {"passive": True}), "get": ("basic.get", {}), "consume": ("basic.consume", {}), "bind": ("queue.bind", {"exchange": "amq.direct"}), "unbind": ("queue.unbind", {"exchange": "amq.direct"}), "purge": ("queue.purge", {}), "delete": ("queue.delete", {})})
def exclusive_queue_used_by_another(broker, method, values):
    channel, other = broker.channel(), broker.channel()
    channel.declare(broker.name("q"), exclusive=True)
    other.call(method, queue=broker.name("q"), **values)


@conversation
def exclusive_queue_ends_with_its_connection(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"), exclusive=True)
    channel.connection.shut()
    # RabbitMQ answers before the queue is gone.
    other, noted = broker.connect(), len(broker.lines)
    for _ in range(200):
        del broker.lines[noted:]
        other.channel(1 + other.last_channel).count(broker.name("q"))
        if "NOT_FOUND" in broker.lines[-1]:
            break
        time.sleep(0.02)
    broker.lines[noted:] = [line.split(" ", 1)[1] for line in broker.lines[noted:]]


@conversation
def queue_in_use(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.consume(broker.name("q"), "c")
    channel.call("queue.delete", queue=broker.name("q"), if_unused=True)


@conversation
def queue_not_empty(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    channel.put("", broker.name("q"))
    channel.call("queue.delete", queue=broker.name("q"), if_empty=True)


@conversation
def queue_deleted_with_its_messages(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    for _ in range(3):
        channel.put("", broker.name("q"))
    channel.call("queue.delete", queue=broker.name("q"))
    channel.call("queue.delete", queue=broker.name("q"))


@conversation
def purge(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    for _ in range(3):
        channel.put("", broker.name("q"))
    channel.get(broker.name("q"), no_ack=False)
    channel.call("queue.purge", queue=broker.name("q"))
    channel.nack(1)
    channel.count_when(broker.name("q"), 1)


@conversation
def queue_goes_with_its_last_consumer(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"), auto_delete=True)
    channel.consume(broker.name("q"), "a")
    channel.consume(broker.name("q"), "b")
    channel.call("basic.cancel", consumer_tag="a")
    channel.count(broker.name("q"))
    channel.call("basic.cancel", consumer_tag="b")
    channel.count(broker.name("q"))


# ---- bindings


@conversations({"default": ("",), "nowhere": (None,)})
def bind_to(broker, exchange):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), broker.name("x") if exchange is None else exchange, "k")


@conversations({"default": ("",), "nowhere": (None,)})
def unbind_from(broker, exchange):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.call("queue.unbind", queue=broker.name("q"), exchange=broker.name("x") if exchange is None else exchange, routing_key="k")


@conversation
def unbind_what_is_not_bound(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.call("queue.unbind", queue=broker.name("q"), exchange="amq.direct", routing_key="k")


@conversation
def bind_without_queue_and_key(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    channel.bind("", "amq.direct")
    channel.put("amq.direct", broker.name("q"), "by its name", mandatory=True)
    channel.get(broker.name("q"))


@conversations(
    {
        "default source": ("amq.direct", ""),
        "default destination": ("", "amq.direct"),
        "no source": ("amq.direct", None),
        "no destination": (None, "amq.direct"),
    }
)
def bind_exchanges(broker, destination, source):
    names = {"destination": destination, "source": source}
    values = {key: broker.name("x") if name is None else name for key, name in names.items()}
    channel = broker.channel()
    channel.call("exchange.bind", **values, routing_key="k")
    if not channel.gone():
        channel.call("exchange.unbind", **values, routing_key="k")


@conversation
def bind_twice_and_unbind_once(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), "amq.direct", broker.name("k"))
    channel.bind(broker.name("q"), "amq.direct", broker.name("k"))
    channel.put("amq.direct", broker.name("k"), "once")
    channel.call("queue.unbind", queue=broker.name("q"), exchange="amq.direct", routing_key=broker.name("k"))
    channel.put("amq.direct", broker.name("k"), "never", mandatory=True)
    channel.count(broker.name("q"))


@conversation
def bindings_that_differ_in_their_arguments(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), "amq.direct", broker.name("k"), {"a": 1})
    channel.bind(broker.name("q"), "amq.direct", broker.name("k"), {"a": 2})
    channel.call("queue.unbind", queue=broker.name("q"), exchange="amq.direct", routing_key=broker.name("k"), arguments={"a": 1})
    channel.put("amq.direct", broker.name("k"), "still", mandatory=True)
    channel.call("queue.unbind", queue=broker.name("q"), exchange="amq.direct", routing_key=broker.name("k"), arguments={"a": 2})
    channel.put("amq.direct", broker.name("k"), "never", mandatory=True)


@conversations({"any": ("x-match", "any"), "all": ("x-match", "all"), "nonsense": ("x-match", "some"), "int": ("x-match", 1), "bool": ("x-match", True)})
def bind_headers(broker, name, value):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), "amq.headers", "", {name: value})


@conversations({"two hashes": ("#.a.#",), "three hashes": ("#.a.#.b.#",), "empty": ("",), "dots": ("...",)})
def bind_topic(broker, key):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), "amq.topic", key)


@conversations({key: (key,) for key in ("1", "0", "-1", "10001", "x", "")})
def bind_consistent_hash(broker, key):
    channel = broker.channel()
    channel.exchange(broker.name("x"), "x-consistent-hash")
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), broker.name("x"), key)

"""Confirms, returns, limits, transactions."""

from conversation import conversation, conversations


@conversation
def confirms(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.publish("", broker.name("q"), "before")
    channel.confirm()
    channel.confirm()
    channel.put("", broker.name("q"), "transient")
    channel.put("", broker.name("q"), "persistent", delivery_mode=2)
    channel.put("", broker.name("nowhere"), "lost")


@conversation
def mandatory(broker):
    channel = broker.channel()
    channel.confirm()
    channel.put("", broker.name("nowhere"), "lost", mandatory=True, headers={"a": 1}, message_id="m")
    channel.put("amq.direct", broker.name("nowhere"), "lost", mandatory=True)


@conversation
def mandatory_without_confirms(broker):
    channel = broker.channel()
    channel.publish("", broker.name("nowhere"), "lost", mandatory=True)
    channel.sync()


@conversation
def immediate(broker):
    channel = broker.channel()
    channel.publish("", broker.name("q"), "m", immediate=True)
    channel.connection.ended()


@conversations({"own": ("guest",), "another": ("somebody",), "empty": ("",)})
def user_id(broker, user):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    channel.put("", broker.name("q"), "m", user_id=user)


@conversations({"drop-head": ({},), "reject-publish": ({"x-overflow": "reject-publish"},), "zero": ({"x-max-length": 0},), "zero, refusing": ({"x-max-length": 0, "x-overflow": "reject-publish"},)})
def max_length(broker, arguments):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), {"x-max-length": 2} | arguments)
    for n in range(3):
        channel.put("", broker.name("q"), f"m{n}")
    for _ in range(3):
        channel.get(broker.name("q"))


@conversations({"drop-head": ({},), "reject-publish": ({"x-overflow": "reject-publish"},)})
def max_length_bytes(broker, arguments):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), {"x-max-length-bytes": 10} | arguments)
    for body in ("aaaaaa", "bbbb", "ccc", "dddddddddddd"):
        channel.put("", broker.name("q"), body)
    for _ in range(4):
        channel.get(broker.name("q"))


@conversation
def limit_counts_what_is_ready(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), {"x-max-length": 1})
    channel.put("", broker.name("q"), "m0")
    channel.get(broker.name("q"), no_ack=False)
    channel.put("", broker.name("q"), "m1")
    channel.nack(1)
    channel.get(broker.name("q"))
    channel.get(broker.name("q"))


@conversation
def one_of_two_queues_refuses(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), "fanout")
    channel.declare(broker.name("a"), {"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.declare(broker.name("b"))
    for name in "ab":
        channel.bind(broker.name(name), broker.name("x"))
    channel.put(broker.name("x"), "", "m0")
    channel.put(broker.name("x"), "", "m1")
    channel.count(broker.name("a"))
    channel.count(broker.name("b"))


@conversation
def refused_and_dead_lettered(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("d"))
    channel.declare(broker.name("q"), {"x-max-length": 1, "x-overflow": "reject-publish-dlx", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": broker.name("d")})
    channel.put("", broker.name("q"), "m0")
    channel.put("", broker.name("q"), "m1")
    channel.count_when(broker.name("d"), 1)


# ---- transactions


def transaction(broker):
    channel = broker.channel()
    channel.call("tx.select")
    channel.declare(broker.name("q"))
    return channel


@conversation
def commit(broker):
    channel = transaction(broker)
    channel.publish("", broker.name("q"), "m")
    channel.count(broker.name("q"))
    channel.call("tx.commit")
    channel.count(broker.name("q"))


@conversation
def rollback(broker):
    channel = transaction(broker)
    channel.publish("", broker.name("q"), "m")
    channel.call("tx.rollback")
    channel.call("tx.commit")
    channel.count(broker.name("q"))


@conversation
def acknowledgements_with_the_commit(broker):
    channel = transaction(broker)
    for n in range(2):
        channel.publish("", broker.name("q"), f"m{n}")
    channel.call("tx.commit")
    for _ in range(2):
        channel.get(broker.name("q"), no_ack=False)
    channel.ack(1)
    channel.reject(2)
    channel.count(broker.name("q"))
    channel.call("tx.commit")
    channel.count_when(broker.name("q"), 1)
    channel.get(broker.name("q"))


@conversation
def acknowledgements_rolled_back(broker):
    channel = transaction(broker)
    channel.publish("", broker.name("q"), "m")
    channel.call("tx.commit")
    channel.get(broker.name("q"), no_ack=False)
    channel.ack(1)
    channel.call("tx.rollback")
    channel.ack(1)
    channel.call("tx.commit")
    channel.count(broker.name("q"))


@conversation
def unknown_tag_in_a_transaction(broker):
    channel = transaction(broker)
    channel.ack(7)
    channel.sync()


@conversation
def return_with_the_commit(broker):
    channel = transaction(broker)
    channel.publish("", broker.name("nowhere"), "m", mandatory=True)
    channel.call("tx.commit")


@conversations({"commit": ("tx.commit",), "rollback": ("tx.rollback",)})
def without_select(broker, method):
    broker.channel().call(method)


@conversation
def select_twice(broker):
    channel = broker.channel()
    channel.call("tx.select")
    channel.call("tx.select")


@conversation
def confirms_in_a_transaction(broker):
    channel = broker.channel()
    channel.call("tx.select")
    channel.call("confirm.select")


@conversation
def a_transaction_among_confirms(broker):
    channel = broker.channel()
    channel.confirm()
    channel.call("tx.select")


@conversation
def refused_in_a_transaction(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"), {"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.call("tx.select")
    channel.publish("", broker.name("q"), "m")
    channel.call("tx.commit")

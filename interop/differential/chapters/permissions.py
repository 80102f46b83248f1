"""Who may do what. The users are those of definitions.json: what `limited` may do with a queue or an exchange
stands in the letters of its name, c for configure, w for write, r for read."""

from conversation import conversation, conversations

SETS = ("n", "c", "w", "r", "cw", "cr", "wr", "cwr")


def limited(broker):
    return broker.channel(user="limited")


def made(broker, *queues, exchanges=()):
    """Queues and exchanges that somebody else has declared."""
    owner = broker.channel()
    noted = len(broker.lines)
    for word in queues:
        owner.declare(broker.name(word))
    for word in exchanges:
        owner.exchange(broker.name(word), "fanout")
    del broker.lines[noted:]
    return limited(broker)


@conversations({word: (word,) for word in SETS})
def queue_declare(broker, word):
    limited(broker).declare(broker.name(word))


@conversations({word: (word,) for word in SETS})
def exchange_declare(broker, word):
    limited(broker).exchange(broker.name(word), "direct")


@conversations({word: (word,) for word in SETS})
def queue_delete(broker, word):
    made(broker, word).call("queue.delete", queue=broker.name(word))


@conversations({word: (word,) for word in SETS})
def exchange_delete(broker, word):
    made(broker, exchanges=[word]).call("exchange.delete", exchange=broker.name(word))


@conversations({word: (word,) for word in SETS})
def passive(broker, word):
    channel = made(broker, word, exchanges=[word])
    channel.count(broker.name(word))
    channel.call("exchange.declare", exchange=broker.name(word), type="fanout", passive=True)


@conversations({word: (word,) for word in SETS})
def get_and_purge(broker, word):
    channel = made(broker, word)
    channel.get(broker.name(word))
    channel = limited(broker)
    channel.call("queue.purge", queue=broker.name(word))


@conversations({word: (word,) for word in SETS})
def consume(broker, word):
    made(broker, word).consume(broker.name(word), "c")


@conversations({word: (word,) for word in SETS})
def publish(broker, word):
    channel = made(broker, exchanges=[word])
    channel.publish(broker.name(word), "k", "m")
    channel.sync()


@conversations({f"{queue} to {exchange}": (queue, exchange) for queue in ("n", "w", "r") for exchange in ("n", "w", "r")})
def queue_bind_and_unbind(broker, queue, exchange):
    channel = made(broker, queue, exchanges=[exchange])
    channel.bind(broker.name(queue), broker.name(exchange))
    limited(broker).call("queue.unbind", queue=broker.name(queue), exchange=broker.name(exchange))


@conversations({f"{target} to {source}": (target, source) for target in ("wc", "rc") for source in ("w", "r")})
def exchange_bind_and_unbind(broker, target, source):
    channel = made(broker, exchanges=[target, source])
    names = {"destination": broker.name(target), "source": broker.name(source)}
    channel.call("exchange.bind", **names)
    limited(broker).call("exchange.unbind", **names)


@conversations({f"{queue} to {target}": (queue, target) for queue in ("c", "cr") for target in ("n", "w")})
def dead_letter_exchange(broker, queue, target):
    limited(broker).declare(broker.name(queue), {"x-dead-letter-exchange": broker.name(target)})


@conversations({f"{exchange} to {target}": (exchange, target) for exchange in ("c", "cr") for target in ("n", "w")})
def alternate_exchange(broker, exchange, target):
    limited(broker).exchange(broker.name(exchange), "direct", {"alternate-exchange": broker.name(target)})


@conversation
def default_exchange(broker):
    channel = made(broker, "w")
    channel.publish("", broker.name("w"), "m")
    channel.sync()


@conversations({"limited": ("limited",), "nothing": ("nothing",)})
def passive_before_it_is_looked_for(broker, user):
    for name in (broker.name("n"), ""):
        broker.channel(user=user).call("exchange.declare", exchange=name, type="direct", passive=True)
        broker.channel(user=user).count(name)
    broker.channel(user=user).call("queue.delete", queue=broker.name("n"))


@conversation
def queue_that_is_there_with_what_it_has(broker):
    channel = made(broker, "n")
    channel.declare(broker.name("n"))


@conversation
def server_named_queue(broker):
    limited(broker).call("queue.declare", queue="", exclusive=True)


@conversation
def refused_before_it_is_looked_for(broker):
    channel = limited(broker)
    channel.get(broker.name("n"))
    channel = limited(broker)
    channel.publish(broker.name("n"), "k", "m")
    channel.sync()


@conversation
def nothing_allows_nothing(broker):
    for work in (
        lambda c: c.declare(broker.name("q")),
        lambda c: c.get(broker.name("q")),
        lambda c: (c.publish("", broker.name("q"), "m"), c.sync()),
        lambda c: c.call("queue.declare", queue=""),
    ):
        work(broker.channel(user="nothing"))


@conversation
def vhost_without_permission(broker):
    broker.connect(user="nowhere")
    # The greeting differs.
    del broker.lines[:-1]


@conversations({"n": ("n", ""), "another user's": ("cwr", "guest"), "own": ("cwr", "limited")})
def user_id(broker, word, user):
    channel = made(broker, "cwr", exchanges=["w"])
    channel.publish(broker.name("w"), "k", "m", **({"user_id": user} if user else {}))
    channel.sync()


# ---- topics: what `limited` may do on amq.topic depends on the routing key


@conversations({key: (key,) for key in ("w.x", "limited.x", "r.x", "x", "w", "")})
def topic_publish(broker, key):
    channel = limited(broker)
    channel.publish("amq.topic", key, "m")
    channel.sync()


@conversations({key: (key,) for key in ("r.x", "r.#", "w.x", "#", "")})
def topic_bind(broker, key):
    channel = made(broker, "wr")
    channel.bind(broker.name("wr"), "amq.topic", key)
    channel = limited(broker)
    channel.call("queue.unbind", queue=broker.name("wr"), exchange="amq.topic", routing_key=key)


@conversation
def topics_of_other_exchanges_are_free(broker):
    owner = broker.channel()
    noted = len(broker.lines)
    owner.exchange(broker.name("wr"), "topic")
    del broker.lines[noted:]
    channel = limited(broker)
    channel.publish(broker.name("wr"), "any.key", "m")
    channel.sync()

"""Arguments of queues and consumers, one by one."""

from amqp import As
from conversation import conversation, conversations, values_of

ODD = (-1, 0, 1, 2**33, 2**62, "1", "", True, 1.5, None, {}, [1], As("T", 1))


@conversations(
    values_of("x-message-ttl", *ODD)
    | values_of("x-expires", *ODD)
    | values_of("x-max-length", *ODD)
    | values_of("x-max-length-bytes", *ODD)
    | values_of("x-max-priority", *ODD, 255, 256)
    | values_of("x-overflow", "drop-head", "reject-publish", "reject-publish-dlx", "nonsense", "", 1)
    | values_of("x-dead-letter-exchange", "", "x", 1, True)
    | values_of("x-dead-letter-routing-key", "k", 1)
    | values_of("x-single-active-consumer", True, False, "true", 1)
    | values_of("x-queue-mode", "lazy", "default", "nonsense", 1)
    | values_of("x-queue-version", 1, 2, 3, "2")
    | values_of("x-queue-type", "classic", "", "nonsense", 1)
    | values_of("x-delivery-limit", 1)
    | values_of("x-max-age", "1h")
    | values_of("x-queue-leader-locator", "client-local", "balanced", "nonsense", 1)
    | values_of("x-any", 1, "text", {})
)
def of_a_queue(broker, name, value):
    broker.channel().declare(broker.name("q"), {name: value})


@conversations(
    values_of("x-delivery-limit", 0, 5, -1, "5", 1.5)
    | values_of("x-dead-letter-strategy", "at-most-once", "at-least-once", "nonsense", 1)
    | values_of("x-overflow", "drop-head", "reject-publish", "reject-publish-dlx")
    | values_of("x-quorum-initial-group-size", 1, 0, -1, "1")
    | values_of("x-max-priority", 5)
    | values_of("x-queue-mode", "lazy")
    | values_of("x-message-ttl", 1, -1, "1")
    | values_of("x-expires", 0, 60000)
    | values_of("x-max-in-memory-length", 1, -1)
    | values_of("x-single-active-consumer", True, 1)
    | values_of("x-max-age", "1h")
)
def of_a_quorum_queue(broker, name, value):
    broker.channel().declare(broker.name("q"), {"x-queue-type": "quorum", name: value})


@conversations({"durable": ({"durable": False},), "exclusive": ({"exclusive": True},), "auto_delete": ({"auto_delete": True},)})
def quorum_queue_with_a_flag(broker, flags):
    broker.channel().declare(broker.name("q"), {"x-queue-type": "quorum"}, **flags)


@conversation
def quorum_queue_without_a_name(broker):
    broker.channel().declare("", {"x-queue-type": "quorum"})


@conversation
def dead_letter_key_with_an_exchange(broker):
    broker.channel().declare(broker.name("q"), {"x-dead-letter-exchange": "x", "x-dead-letter-routing-key": "k"})


@conversations(values_of("x-priority", 0, 5, -5, "5", 1.5, True, None) | values_of("x-stream-offset", "first") | values_of("x-any", 1))
def of_a_consumer(broker, name, value):
    channel = broker.channel()
    channel.declare(broker.name("q"))
    channel.consume(broker.name("q"), "c", {name: value})


@conversations({text: (text,) for text in ("0", "1000", "-1", "", " 1", "1x", "x", "1.5", "+5", "315360000000", "315360000001", "99999999999999999999")})
def expiration(broker, text):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    channel.put("", broker.name("q"), "m", expiration=text)

"""Time to live, dead letters, quorum queues."""

import re
import time

from conversation import conversation, conversations


def timeless(broker):
    """Takes the times out of what was noted: they differ from run to run."""
    broker.lines = [re.sub(r"time=T:\d+", "time=T:now", line) for line in broker.lines]


def dead_lettering(broker, arguments, key="d", source="q"):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("d"))
    channel.declare(broker.name(source), {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": broker.name(key)} | arguments)
    return channel


@conversation
def queue_ttl(broker):
    channel = dead_lettering(broker, {"x-message-ttl": 20})
    channel.put("", broker.name("q"), "m")
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def message_ttl(broker):
    channel = dead_lettering(broker, {})
    channel.put("", broker.name("q"), "m", expiration="20", headers={"a": 1}, priority=3, message_id="i")
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def shorter_ttl_counts(broker):
    channel = dead_lettering(broker, {"x-message-ttl": 20})
    channel.put("", broker.name("q"), "m", expiration="600000")
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def ttl_zero(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), {"x-message-ttl": 0})
    channel.put("", broker.name("q"), "gone")
    channel.count(broker.name("q"))
    channel.consume(broker.name("q"), "c", no_ack=True)
    channel.publish("", broker.name("q"), "just in time")
    channel.read_sorted(2)


@conversation
def queue_lease(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"), {"x-expires": 30})
    time.sleep(0.5)
    channel.count(broker.name("q"))


@conversation
def rejected(broker):
    channel = dead_lettering(broker, {})
    channel.put("", broker.name("q"), "m")
    channel.get(broker.name("q"), no_ack=False)
    channel.reject(1, requeue=False)
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def too_long(broker):
    channel = dead_lettering(broker, {"x-max-length": 1})
    channel.put("", broker.name("q"), "m0")
    channel.put("", broker.name("q"), "m1")
    channel.get_when_there(broker.name("d"))
    channel.get(broker.name("q"))
    timeless(broker)


@conversation
def original_key_is_kept(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), "direct")
    channel.declare(broker.name("d"))
    channel.bind(broker.name("d"), broker.name("x"), broker.name("q"))
    channel.declare(broker.name("q"), {"x-dead-letter-exchange": broker.name("x"), "x-message-ttl": 20})
    channel.put("", broker.name("q"), "m")
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def copies_of_a_dead_letter(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), "direct")
    channel.declare(broker.name("d"))
    channel.bind(broker.name("d"), broker.name("x"), broker.name("copy"))
    channel.declare(broker.name("q"), {"x-dead-letter-exchange": broker.name("x"), "x-message-ttl": 20})
    channel.put("", broker.name("q"), "m", headers={"CC": [broker.name("copy")], "BCC": [broker.name("secret")]})
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def new_key_drops_copies(broker):
    channel = dead_lettering(broker, {"x-message-ttl": 20})
    channel.put("", broker.name("q"), "m", headers={"CC": [broker.name("copy")]})
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def exchange_that_is_not_there(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), {"x-dead-letter-exchange": broker.name("nowhere")})
    channel.put("", broker.name("q"), "m")
    channel.get(broker.name("q"), no_ack=False)
    channel.reject(1, requeue=False)
    channel.count(broker.name("q"))


@conversation
def twice_dead(broker):
    channel = dead_lettering(broker, {"x-message-ttl": 20}, key="r")
    channel.declare(broker.name("r"), {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": broker.name("d"), "x-message-ttl": 20})
    channel.put("", broker.name("q"), "m")
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def dead_again_in_the_same_queue(broker):
    channel = dead_lettering(broker, {}, key="q")
    channel.put("", broker.name("q"), "m")
    for tag in (1, 2):
        got(channel, broker.name("q"))
        channel.reject(tag, requeue=False)
    channel.get_when_there(broker.name("q"))
    timeless(broker)


@conversation
def circle_without_a_rejection(broker):
    channel = dead_lettering(broker, {"x-message-ttl": 20}, key="q")
    channel.put("", broker.name("q"), "m")
    time.sleep(0.3)
    channel.count(broker.name("q"))


# ---- quorum queues


def quorum(broker, arguments=None):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("d"))
    channel.declare(
        broker.name("q"),
        {"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": broker.name("d")} | (arguments or {}),
    )
    return channel


def got(channel, queue):
    return channel.until(lambda: channel.get(queue, no_ack=False), lambda item: item[0] == "basic.get-ok")


@conversation
def quorum_counts_failures(broker):
    channel = quorum(broker, {"x-delivery-limit": 2})
    channel.put("", broker.name("q"), "m")
    for tag in (1, 2, 3):
        got(channel, broker.name("q"))
        channel.reject(tag)
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversations({"delete if unused": ({"if_unused": True},), "delete if empty": ({"if_empty": True},), "delete": ({},)})
def quorum_deleted(broker, flags):
    channel = quorum(broker)
    channel.send("queue.delete", queue=broker.name("q"), **flags)
    channel.sync()


@conversation
def quorum_with_a_limit_of_the_channel(broker):
    channel = quorum(broker)
    channel.prefetch(1, everywhere=True)
    channel.send("basic.consume", queue=broker.name("q"), consumer_tag="c")
    channel.sync()


@conversation
def quorum_single_active_get(broker):
    channel = quorum(broker, {"x-single-active-consumer": True})
    channel.get(broker.name("q"))


@conversation
def quorum_expired(broker):
    channel = quorum(broker, {"x-message-ttl": 20})
    channel.put("", broker.name("q"), "m")
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def quorum_too_long(broker):
    channel = quorum(broker, {"x-max-length": 1})
    for n in range(2):
        channel.put("", broker.name("q"), f"m{n}")
    channel.get_when_there(broker.name("d"))
    timeless(broker)


@conversation
def quorum_rejected(broker):
    channel = quorum(broker)
    channel.put("", broker.name("q"), "m")
    got(channel, broker.name("q"))
    channel.reject(1, requeue=False)
    channel.get_when_there(broker.name("d"))
    timeless(broker)

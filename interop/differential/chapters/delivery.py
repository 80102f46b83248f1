"""Consume, get, acknowledge, prefetch, requeue, cancel."""

from conversation import conversation, conversations


def filled(broker, count=3, arguments=None, **flags):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), arguments, **flags)
    for n in range(count):
        channel.put("", broker.name("q"), f"m{n}")
    return channel


@conversation
def get_until_empty(broker):
    channel = filled(broker)
    for _ in range(4):
        channel.get(broker.name("q"), no_ack=False)
    channel.ack(2, multiple=True)
    channel.ack(3)
    channel.count(broker.name("q"))


@conversation
def consume_and_acknowledge(broker):
    channel = filled(broker)
    channel.consume(broker.name("q"), "c")
    channel.read(3)
    channel.ack(3, multiple=True)
    channel.count(broker.name("q"))


@conversation
def consume_without_acknowledgement(broker):
    channel = filled(broker)
    channel.consume(broker.name("q"), "c", no_ack=True)
    channel.read(3)
    channel.count(broker.name("q"))


@conversation
def consumer_tag_by_the_server(broker):
    channel = filled(broker, 1)
    channel.consume(broker.name("q"))
    channel.read()


@conversation
def consumer_tag_twice(broker):
    channel = filled(broker, 0)
    channel.consume(broker.name("q"), "c")
    channel.send("basic.consume", queue=broker.name("q"), consumer_tag="c")
    channel.connection.ended()


@conversation
def consumer_tag_on_two_channels(broker):
    channel = filled(broker, 0)
    channel.consume(broker.name("q"), "c")
    channel.connection.channel().consume(broker.name("q"), "c")


@conversation
def consume_without_waiting(broker):
    channel = filled(broker, 1)
    channel.send("basic.consume", queue=broker.name("q"), consumer_tag="c", nowait=True)
    channel.read()
    channel.send("basic.cancel", consumer_tag="c", nowait=True)
    channel.count(broker.name("q"))


@conversation
def cancel_what_is_not_there(broker):
    channel = filled(broker, 0)
    channel.call("basic.cancel", consumer_tag="nobody")


@conversation
def cancel_keeps_what_was_delivered(broker):
    channel = filled(broker)
    channel.prefetch(2)
    channel.consume(broker.name("q"), "c")
    channel.read(2)
    channel.call("basic.cancel", consumer_tag="c")
    channel.count(broker.name("q"))
    channel.ack(2, multiple=True)
    channel.get(broker.name("q"))


@conversations({"0": (0, False), "1": (1, False), "7": (7, False), "7 multiple": (7, True)})
def unknown_tag(broker, tag, multiple):
    channel = filled(broker, 0)
    channel.ack(tag, multiple)
    channel.sync()


@conversations({"nack": ("basic.nack",), "reject": ("basic.reject",)})
def unknown_tag_refused(broker, method):
    channel = filled(broker, 0)
    channel.send(method, delivery_tag=7)
    channel.sync()


@conversation
def acknowledged_twice(broker):
    channel = filled(broker)
    channel.get(broker.name("q"), no_ack=False)
    channel.ack(1)
    channel.ack(1)
    channel.sync()


@conversation
def acknowledged_by_another_channel(broker):
    channel = filled(broker)
    channel.get(broker.name("q"), no_ack=False)
    other = channel.connection.channel()
    other.ack(1)
    other.sync()


@conversation
def all_by_tag_zero(broker):
    channel = filled(broker)
    for _ in range(2):
        channel.get(broker.name("q"), no_ack=False)
    channel.ack(0, multiple=True)
    channel.count(broker.name("q"))


@conversation
def acknowledgement_of_what_needs_none(broker):
    channel = filled(broker)
    channel.get(broker.name("q"))
    channel.ack(1)
    channel.sync()


@conversation
def requeue_to_the_old_place(broker):
    channel = filled(broker, 4)
    for _ in range(3):
        channel.get(broker.name("q"), no_ack=False)
    channel.nack(2)
    channel.nack(1)
    for _ in range(3):
        channel.get(broker.name("q"))


@conversation
def nack_several(broker):
    channel = filled(broker, 4)
    for _ in range(3):
        channel.get(broker.name("q"), no_ack=False)
    channel.nack(2, multiple=True)
    channel.reject(3, requeue=False)
    for _ in range(4):
        channel.get(broker.name("q"))


@conversation
def rejected_is_gone(broker):
    channel = filled(broker, 2)
    channel.get(broker.name("q"), no_ack=False)
    channel.reject(1, requeue=False)
    channel.count(broker.name("q"))
    channel.get(broker.name("q"))


@conversation
def recover(broker):
    channel = filled(broker, 3)
    channel.consume(broker.name("q"), "c")
    channel.read(3)
    channel.ack(1)
    channel.call("basic.recover", requeue=True)
    channel.read(2)


@conversations({"recover": ("basic.recover", False), "recover-async": ("basic.recover-async", False)})
def recover_without_requeue(broker, method, requeue):
    channel = filled(broker, 0)
    channel.send(method, requeue=requeue)
    channel.connection.ended()


@conversation
def recover_async(broker):
    channel = filled(broker, 2)
    channel.get(broker.name("q"), no_ack=False)
    channel.send("basic.recover-async", requeue=True)
    channel.get_when_there(broker.name("q"))


# ---- prefetch


@conversation
def prefetch_one(broker):
    channel = filled(broker)
    channel.prefetch(1)
    channel.consume(broker.name("q"), "c")
    for tag in (1, 2, 3):
        channel.read()
        channel.count(broker.name("q"))
        channel.ack(tag)
    channel.count(broker.name("q"))


@conversation
def prefetch_is_of_each_consumer(broker):
    channel = filled(broker, 4)
    channel.prefetch(1)
    channel.consume(broker.name("q"), "a")
    channel.read()
    channel.prefetch(2)
    channel.consume(broker.name("q"), "b")
    channel.read(2)
    channel.count(broker.name("q"))


@conversation
def prefetch_changes_nothing_for_those_who_are_there(broker):
    channel = filled(broker, 3)
    channel.prefetch(1)
    channel.consume(broker.name("q"), "a")
    channel.read()
    channel.prefetch(3)
    channel.count(broker.name("q"))
    channel.ack(1)
    channel.read()
    channel.count(broker.name("q"))


@conversation
def prefetch_size(broker):
    channel = filled(broker, 0)
    channel.send("basic.qos", prefetch_size=10)
    channel.connection.ended()


@conversation
def prefetch_does_not_count_get(broker):
    channel = filled(broker, 3)
    channel.prefetch(1)
    channel.get(broker.name("q"), no_ack=False)
    channel.get(broker.name("q"), no_ack=False)
    channel.consume(broker.name("q"), "c")
    channel.read()


# ---- who gets what


@conversation
def consumers_take_turns(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    a, b = channel.connection.channel(), channel.connection.channel()
    a.consume(broker.name("q"), "a")
    b.consume(broker.name("q"), "b")
    for n in range(4):
        channel.put("", broker.name("q"), f"m{n}")
    a.read(2)
    b.read(2)


@conversation
def higher_priority_first(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"))
    low, high = channel.connection.channel(), channel.connection.channel()
    high.prefetch(1)
    low.consume(broker.name("q"), "low", {"x-priority": -1})
    high.consume(broker.name("q"), "high", {"x-priority": 5})
    for n in range(2):
        channel.put("", broker.name("q"), f"m{n}")
    high.read()
    low.read()
    high.ack(1)
    high.count(broker.name("q"))
    channel.put("", broker.name("q"), "m2")
    high.read()


@conversation
def single_active_consumer(broker):
    channel = filled(broker, 2, {"x-single-active-consumer": True})
    a, b = channel.connection.channel(), channel.connection.channel()
    a.prefetch(1)
    a.consume(broker.name("q"), "a")
    a.read()
    b.consume(broker.name("q"), "b")
    b.count(broker.name("q"))
    a.call("basic.cancel", consumer_tag="a")
    b.read()
    a.nack(1)
    b.read()


@conversation
def single_active_and_exclusive(broker):
    channel = filled(broker, 0, {"x-single-active-consumer": True})
    channel.consume(broker.name("q"), "c", exclusive=True)


@conversation
def exclusive_consumer(broker):
    channel = filled(broker, 0)
    channel.consume(broker.name("q"), "a", exclusive=True)
    channel.connection.channel().consume(broker.name("q"), "b")


@conversation
def exclusive_consumer_that_is_not_the_first(broker):
    channel = filled(broker, 0)
    channel.consume(broker.name("q"), "a")
    channel.connection.channel().consume(broker.name("q"), "b", exclusive=True)


@conversation
def consumer_of_a_deleted_queue(broker):
    channel = filled(broker, 0)
    other = channel.connection.channel()
    channel.consume(broker.name("q"), "c")
    other.call("queue.delete", queue=broker.name("q"))
    channel.read()


@conversation
def consumer_of_a_queue_that_its_own_channel_deletes(broker):
    channel = broker.connect().channel()
    channel.declare(broker.name("q"), durable=True)
    channel.consume(broker.name("q"), "c")
    channel.call("queue.delete", queue=broker.name("q"))
    channel.read()


@conversation
def no_local_is_ignored(broker):
    channel = filled(broker, 1)
    channel.consume(broker.name("q"), "c", no_local=True)
    channel.read()


# ---- priorities


@conversation
def priorities(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), {"x-max-priority": 5})
    for n, priority in enumerate((None, 1, 5, 9, 0, 5)):
        channel.put("", broker.name("q"), f"m{n}", **({} if priority is None else {"priority": priority}))
    for _ in range(6):
        channel.get(broker.name("q"))


@conversation
def priority_of_a_requeued_message(broker):
    channel = broker.channel()
    channel.confirm()
    channel.declare(broker.name("q"), {"x-max-priority": 5})
    for n, priority in enumerate((1, 3, 3)):
        channel.put("", broker.name("q"), f"m{n}", priority=priority)
    channel.get(broker.name("q"), no_ack=False)
    channel.nack(1)
    for _ in range(3):
        channel.get(broker.name("q"))


# ---- direct reply-to


@conversation
def reply_to(broker):
    channel = broker.channel()
    channel.consume("amq.rabbitmq.reply-to", "r", no_ack=True)
    channel.declare(broker.name("q"))
    channel.publish("", broker.name("q"), "question", reply_to="amq.rabbitmq.reply-to", correlation_id="7")
    answering = broker.channel()
    item = answering.get_when_there(broker.name("q"))
    answering.publish("", item[2]["reply_to"], "answer", correlation_id="7")
    channel.read()
    channel.call("basic.cancel", consumer_tag="r")
    answering.confirm()
    answering.put("", item[2]["reply_to"], "too late", mandatory=True)


@conversation
def reply_to_without_a_consumer(broker):
    channel = broker.channel()
    channel.publish("", broker.name("q"), "question", reply_to="amq.rabbitmq.reply-to")
    channel.sync()


@conversation
def reply_to_with_acknowledgement(broker):
    broker.channel().consume("amq.rabbitmq.reply-to", "r", no_ack=False)


@conversation
def reply_to_twice(broker):
    channel = broker.channel()
    channel.consume("amq.rabbitmq.reply-to", "r", no_ack=True)
    channel.consume("amq.rabbitmq.reply-to", "s", no_ack=True)


@conversations({"nobody": ("amq.rabbitmq.reply-to.nobody",), "empty": ("amq.rabbitmq.reply-to.",)})
def reply_queue_that_is_not_there(broker, name):
    channel = broker.channel()
    channel.call("queue.declare", queue=name, passive=True)

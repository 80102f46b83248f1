"""Channels."""

from conversation import conversation, conversations


@conversation
def open_twice(broker):
    channel = broker.channel()
    channel.send("channel.open")
    channel.connection.ended()


@conversations({"queue.declare": ("queue.declare",), "channel.close": ("channel.close",), "channel.close-ok": ("channel.close-ok",), "channel.flow": ("channel.flow",)})
def method_on_a_channel_that_is_not_open(broker, name):
    connection = broker.connect()
    channel = connection.channel()
    other = type(channel)(connection, 7)
    other.send(name)
    connection.ended()


@conversation
def number_above_the_limit(broker):
    connection = broker.connect()
    connection.channel(2048).count("amq.nothing")
    connection.channel(65535).count("amq.nothing")


@conversation
def highest_number(broker):
    connection = broker.connect()
    connection.channel(2047).count("amq.nothing")


@conversation
def more_channels_than_negotiated(broker):
    connection = broker.socket()
    connection.write(b"AMQP\0\0\x09\x01")
    noted = len(broker.lines)
    connection.read()
    connection.call("connection.start-ok", mechanism="PLAIN", response="\0guest\0guest", locale="en_US")
    connection.send("connection.tune-ok", channel_max=2, frame_max=131072)
    connection.call("connection.open", virtual_host="/")
    del broker.lines[noted:]
    connection.channel(1)
    connection.channel(2)
    connection.channel(3)
    connection.ended()


@conversation
def close(broker):
    channel = broker.channel()
    channel.call("channel.close", reply_code=200, reply_text="bye")
    channel.call("channel.open")
    channel.count("amq.nothing")


@conversation
def close_ok_out_of_turn(broker):
    channel = broker.channel()
    channel.send("channel.close-ok")
    channel.sync()


@conversation
def number_is_free_after_an_error(broker):
    channel = broker.channel()
    channel.count(broker.name("q"))
    channel.closed = False
    channel.call("channel.open")
    channel.declare(broker.name("q"))


@conversation
def methods_after_an_error_are_ignored(broker):
    connection = broker.connect()
    channel, other = connection.channel(), connection.channel()
    # The broker gets all of it before it gets close-ok.
    channel.send("queue.declare", queue=broker.name("q"), passive=True)
    channel.send("queue.declare", queue=broker.name("late"))
    channel.publish("amq.direct", "k")
    channel.send("basic.ack", delivery_tag=7)
    channel.read()
    other.count(broker.name("late"))


@conversation
def close_crossing(broker):
    connection = broker.connect()
    channel, other = connection.channel(), connection.channel()
    channel.send("queue.declare", queue=broker.name("q"), passive=True)
    channel.send("channel.close", reply_code=200, reply_text="bye")
    channel.read()
    channel.closed = False
    channel.read()
    other.sync()
    channel.call("channel.open")


@conversation
def error_leaves_other_channels_alone(broker):
    connection = broker.connect()
    one, two = connection.channel(), connection.channel()
    one.count(broker.name("q"))
    two.declare(broker.name("q"))


@conversation
def close_requeues(broker):
    connection = broker.connect()
    one, two = connection.channel(), connection.channel()
    two.declare(broker.name("q"))
    two.confirm()
    for body in "abc":
        two.put("", broker.name("q"), body)
    one.get(broker.name("q"), no_ack=False)
    one.get(broker.name("q"), no_ack=False)
    two.count(broker.name("q"))
    one.call("channel.close", reply_code=200)
    two.count_when(broker.name("q"), 3)
    for _ in range(4):
        two.get(broker.name("q"))


@conversation
def close_ends_consumers(broker):
    connection = broker.connect()
    one, two = connection.channel(), connection.channel()
    one.declare(broker.name("q"))
    one.consume(broker.name("q"), "t")
    two.count(broker.name("q"))
    one.call("channel.close", reply_code=200)
    two.count(broker.name("q"))


@conversation
def exclusive_queue_outlives_its_channel(broker):
    connection = broker.connect()
    one, two = connection.channel(), connection.channel()
    one.declare(broker.name("q"), exclusive=True)
    one.call("channel.close", reply_code=200)
    two.count(broker.name("q"))


@conversations({"on": (True,), "off": (False,)})
def flow(broker, active):
    channel = broker.channel()
    channel.call("channel.flow", active=active)
    if channel.connection.closed:
        channel.connection.ended()


@conversation
def a_long_text_in_close(broker):
    channel = broker.channel()
    channel.call("channel.close", reply_code=200, reply_text="x" * 255)


@conversation
def long_names_cut_the_text(broker):
    channel = broker.channel()
    channel.count(broker.name("q" * 200))
    channel = broker.channel()
    channel.count(broker.name("q" * 241))
    channel = broker.channel()
    channel.count(broker.name("q" * 220))

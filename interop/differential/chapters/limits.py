"""How much a user and a vhost may use. definitions.json gives user `few` 2 connections and 2 channels, and vhost `differential` 3
connections and 2 queues. One conversation, since others would count as well."""

from conversation import conversation


@conversation
def of_a_user_and_of_a_vhost(broker):
    def refused(**options):
        connection = broker.connect(**options)
        # The greeting differs.
        greeting = next(n for n, line in enumerate(broker.lines) if "connection.start " in line)
        del broker.lines[greeting:-1]
        return connection

    small = {"vhost": "differential"}
    first = broker.connect(user="few")
    second = broker.connect(user="few", **small)
    refused(user="few")
    refused(user="few", **small)
    broker.connect(**small)
    last = broker.connect(**small)
    # The limit of the vhost is looked at before that of the user, and both before permissions.
    refused(**small)
    refused(user="few", **small)
    refused(user="nothing", **small)
    refused(user="few", vhost="nowhere")

    # Channels are counted over all connections of the user.
    first.channel()
    one = second.channel()
    one.call("channel.close", reply_code=200, reply_text="bye")
    second.channel()
    first.channel()

    # Queues that are there may be declared again.
    channel = last.channel()
    for word in ("a", "b", "c"):
        channel.declare(broker.name(word))
    channel = last.channel()
    channel.declare(broker.name("a"))
    channel.call("queue.declare", queue="", exclusive=True)
    channel = last.channel()
    for word in ("a", "b"):
        channel.call("queue.delete", queue=broker.name(word))
    channel.declare(broker.name("c"))
    channel.call("queue.delete", queue=broker.name("c"))

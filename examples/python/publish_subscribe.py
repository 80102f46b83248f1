"""Publish and subscribe: everybody who subscribed to a topic gets a copy of what is published to it."""

from broker import connect

EXCHANGE = "example.python.events"

connection = connect()
channel = connection.channel()
channel.exchange_declare(EXCHANGE, "topic")
received = []


def subscribe(name, topic):
    """A queue of its own for this subscriber, which goes with its connection."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EXCHANGE, topic)

    def event(channel, method, properties, body):
        received.append(body)
        print(f"{name}: {body.decode()}")

    # What is delivered counts as acknowledged: a subscriber that is gone misses events anyway.
    channel.basic_consume(queue, event, auto_ack=True)


subscribe("orders", "order.*")
subscribe("all", "#")
for topic in ["order.placed", "customer.new", "order.paid"]:
    channel.basic_publish(EXCHANGE, topic, f"{topic} happened".encode())
while len(received) < 5:
    connection.process_data_events(time_limit=None)
channel.exchange_delete(EXCHANGE)
connection.close()

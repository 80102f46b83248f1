"""Remote procedure calls: requests go through a queue, replies come straight to the channel that asked
(`amq.rabbitmq.reply-to`), without a queue for them."""

import pika

from broker import connect

QUEUE = "example.python.squares"
REPLY_TO = "amq.rabbitmq.reply-to"

connection = connect()
server = connection.channel()
server.queue_declare(QUEUE, exclusive=True)


def serve(channel, method, properties, body):
    """Answers a request with the square of the number in it."""
    square = str(int(body) ** 2).encode()
    answer = pika.BasicProperties(correlation_id=properties.correlation_id)
    channel.basic_publish("", properties.reply_to, square, answer)
    channel.basic_ack(method.delivery_tag)


server.basic_consume(QUEUE, serve)

client = connection.channel()
replies = {}


def reply(channel, method, properties, body):
    replies[properties.correlation_id] = body.decode()


# Direct reply-to demands auto_ack.
client.basic_consume(REPLY_TO, reply, auto_ack=True)
for number in ["2", "3", "4"]:
    request = pika.BasicProperties(reply_to=REPLY_TO, correlation_id=number)
    client.basic_publish("", QUEUE, number.encode(), request)
    while number not in replies:
        connection.process_data_events(time_limit=None)
    print(f"{number} squared is {replies[number]}")
connection.close()

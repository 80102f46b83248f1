"""What the examples share."""

import os

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")


def connect():
    """Connects to the broker at AMQP_URL, or to the one that `./start` starts."""
    return pika.BlockingConnection(pika.URLParameters(URL))


PERSISTENT = pika.BasicProperties(delivery_mode=2)

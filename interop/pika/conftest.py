"""A connection per test to the broker at AMQP_URL; names that no other test uses."""
import os
import uuid

import pika
import pytest

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")


def parameters(**changes):
    p = pika.URLParameters(URL)
    for name, value in changes.items():
        setattr(p, name, value)
    return p


@pytest.fixture
def connect():
    opened = []

    def open_one(**changes):
        connection = pika.BlockingConnection(parameters(**changes))
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def channel(connection):
    return connection.channel()


@pytest.fixture
def name():
    return "interop-" + uuid.uuid4().hex


@pytest.fixture
def queue(channel, name):
    channel.queue_declare(name, exclusive=True)
    return name

"""Connections, channels and names, each test with its own, all of them removed at its end."""

import uuid

import pika
import pytest

import support


@pytest.fixture
def name():
    """Gives names that nobody else uses; what was declared under them is deleted at the end."""
    given = []

    def make(word="thing"):
        given.append(f"interop.pika.{uuid.uuid4().hex[:12]}.{word}")
        return given[-1]

    yield make
    if given:
        with pika.BlockingConnection(support.parameters()) as connection:
            channel = connection.channel()
            for each in given:
                channel.queue_delete(each)
                channel.exchange_delete(each)


@pytest.fixture
def connect(name):
    """Opens connections that are closed at the end. It depends on `name` so that they are closed first."""
    opened = []

    def open_one(**overrides):
        opened.append(pika.BlockingConnection(support.parameters(**overrides)))
        return opened[-1]

    yield open_one
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def channel(connection):
    """A channel in confirm mode: what was published on it is in its queues when `publish` returns."""
    result = connection.channel()
    result.confirm_delivery()
    return result


@pytest.fixture
def queue(channel, name):
    """An empty durable queue."""
    return channel.queue_declare(name("queue"), durable=True).method.queue


@pytest.fixture
def exchange(channel, name):
    """Declares exchanges of a type and returns their names."""

    def declare(kind, **options):
        result = name(kind)
        channel.exchange_declare(result, kind, **options)
        return result

    return declare


@pytest.fixture
def bound(channel, name):
    """Declares an exclusive queue, binds it to an exchange and returns its name."""

    def declare(exchange_name, routing_key="", arguments=None):
        result = channel.queue_declare(name("bound"), exclusive=True).method.queue
        channel.queue_bind(result, exchange_name, routing_key, arguments)
        return result

    return declare

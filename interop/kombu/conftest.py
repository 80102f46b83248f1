"""Connections and names, each test with its own."""

import os
import time
import uuid

import kombu
import pytest

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")

# What has not come by then does not come.
DEADLINE_S = 15


@pytest.fixture
def name():
    """A name that nobody else uses."""
    return lambda word="thing": f"interop.kombu.{uuid.uuid4().hex[:12]}.{word}"


@pytest.fixture
def connect():
    """Opens connections that are closed at the end."""
    opened = []

    def open_one(**options):
        opened.append(kombu.Connection(URL, connect_timeout=DEADLINE_S, **options))
        opened[-1].connect()
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.release()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def until():
    """Serves a connection until the condition holds."""

    def serve(connection, condition):
        end = time.monotonic() + DEADLINE_S
        while not condition():
            connection.drain_events(timeout=max(end - time.monotonic(), 0.001))

    return serve

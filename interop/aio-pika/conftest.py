"""Connections and names, each test with its own."""

import asyncio
import os
import uuid

import aio_pika
import pytest

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")

# What has not come by then does not come.
DEADLINE_S = 15


@pytest.fixture
def soon():
    """Waits for something, but not for ever."""
    return lambda what: asyncio.wait_for(what, DEADLINE_S)


@pytest.fixture
def name():
    """A name that nobody else uses."""
    return lambda word="thing": f"interop.aio-pika.{uuid.uuid4().hex[:12]}.{word}"


@pytest.fixture
async def connect():
    """Opens connections that are closed at the end."""
    opened = []

    async def open_one(opener=aio_pika.connect, **options):
        opened.append(await opener(URL, timeout=DEADLINE_S, **options))
        return opened[-1]

    yield open_one
    for connection in opened:
        await connection.close()


@pytest.fixture
async def connection(connect):
    return await connect()


@pytest.fixture
async def channel(connection):
    return await connection.channel()


@pytest.fixture
async def queue(channel, name):
    """An exclusive queue."""
    return await channel.declare_queue(name("queue"), exclusive=True)

"""What a quorum queue does with a message that comes back: counts, delays, dead letters that are kept."""

import time

import pytest

from support import Inbox, publish, ready

MIN_MS, MAX_MS = 200, 500


@pytest.fixture
def quorum(channel, name):
    """Declares a quorum queue with these arguments."""

    def declare(**arguments):
        arguments = {"x-" + key.replace("_", "-"): value for key, value in arguments.items()}
        arguments["x-queue-type"] = "quorum"
        return channel.queue_declare(name("quorum"), durable=True, arguments=arguments).method.queue

    return declare


def waits(channel, queue, come_back, times=4):
    """Lets a message come back so many times; the milliseconds that it was away, and its counts then."""
    inbox = Inbox(channel, queue)
    publish(channel, "", queue)
    result = []
    for n in range(times + 1):
        inbox.wait(n + 1)
        now = time.monotonic()
        method, properties, _ = inbox.messages[n]
        if n:
            headers = properties.headers
            result.append(((now - before) * 1000, headers["x-acquired-count"], headers.get("x-delivery-count")))
        before = now
        if n < times:
            come_back(method.delivery_tag)
    return result


def test_who_failed_waits_longer_each_time(channel, quorum):
    queue = quorum(delayed_retry_type="failed", delayed_retry_min=MIN_MS, delayed_retry_max=MAX_MS)
    away = waits(channel, queue, lambda tag: channel.basic_reject(tag, requeue=True))
    assert [counts for _, *counts in away] == [[n, n] for n in range(1, 5)]
    for n, (ms, *_) in enumerate(away, 1):
        least = min(MIN_MS * n, MAX_MS)
        # RabbitMQ is now and then a few milliseconds early.
        assert least - 20 <= ms < least + 2000, away


def test_who_was_handed_back_waits_the_least(channel, quorum):
    queue = quorum(delayed_retry_type="returned", delayed_retry_min=MIN_MS, delayed_retry_max=MAX_MS)
    away = waits(channel, queue, lambda tag: channel.basic_nack(tag, requeue=True), times=2)
    assert [counts for _, *counts in away] == [[1, None], [2, None]]
    assert all(MIN_MS - 20 <= ms < MIN_MS + 2000 for ms, *_ in away), away


@pytest.mark.parametrize(
    "arguments",
    [
        {"delayed_retry_type": "returned", "delayed_retry_min": 60_000},
        {"delayed_retry_min": 60_000},
        {"delayed_retry_type": "all"},
    ],
)
def test_without_a_type_or_a_least_there_is_no_wait(channel, quorum, arguments):
    away = waits(channel, quorum(**arguments), lambda tag: channel.basic_reject(tag, requeue=True), times=2)
    assert all(ms < 2000 for ms, *_ in away), away


def test_what_waits_is_neither_ready_nor_lost(channel, quorum):
    queue = quorum(delayed_retry_type="all", delayed_retry_min=60_000, delayed_retry_max=60_000)
    publish(channel, "", queue)
    method, _, _ = channel.basic_get(queue)
    channel.basic_reject(method.delivery_tag, requeue=True)
    assert ready(channel, queue) == 0
    assert channel.basic_get(queue) == (None, None, None)
    assert channel.queue_purge(queue).method.message_count == 1

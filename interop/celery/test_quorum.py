"""Celery on quorum queues, with delays that the broker keeps."""

import time

import pytest
import quorum_tasks
from conftest import DEADLINE_S, Worker


@pytest.fixture(scope="module")
def worker():
    result = Worker(app="quorum_tasks")
    yield result
    result.stop()
    with quorum_tasks.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(quorum_tasks.QUEUE)
        connection.default_channel.exchange_delete(quorum_tasks.QUEUE)


def test_a_task_now(worker):
    assert quorum_tasks.add.delay(1, 2).get(timeout=DEADLINE_S) == 3


def test_a_countdown_is_kept_by_the_broker(worker):
    began = time.monotonic()
    sent = quorum_tasks.add.apply_async((3, 4), countdown=3)
    # It waits in a queue of the broker, not in the worker.
    with quorum_tasks.app.connection_for_read() as connection:
        counts = [connection.default_channel.queue_declare(f"celery_delayed_{bit}", passive=True).message_count for bit in (0, 1)]
    assert sum(counts) == 1
    assert sent.get(timeout=DEADLINE_S) == 7
    assert 2.5 < time.monotonic() - began < 10


def test_retries_are_delayed_by_the_broker(worker):
    assert quorum_tasks.flaky.delay(2).get(timeout=DEADLINE_S) == "after 2"

"""Chords, and tasks with priorities that wait for a worker."""

import chord_tasks
import pytest
from celery import chord, group
from conftest import DEADLINE_S, Worker


@pytest.fixture
def one_at_a_time():
    """Starts a worker with one process."""
    workers = []

    def start():
        workers.append(Worker("chord_tasks", processes=1))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
    with chord_tasks.app.connection_for_write() as connection:
        for name in (chord_tasks.DEFAULT, chord_tasks.ORDER):
            connection.default_channel.queue_delete(name)
            connection.default_channel.exchange_delete(name)


def test_a_chord_of_chords(one_at_a_time):
    worker = one_at_a_time()
    numbers = group(chord_tasks.add.s(n, n) for n in range(5))
    result = chord([chord(numbers, chord_tasks.total.s()), chord_tasks.add.s(1, 2)], chord_tasks.total.s()).apply_async()
    assert result.get(timeout=DEADLINE_S, interval=0.05) == 2 * sum(range(5)) + 3
    worker.stop()


def test_who_matters_most_is_first(one_at_a_time):
    with chord_tasks.app.connection_for_write() as connection:
        # Celery does it once for a process, and the queue may have been deleted since.
        chord_tasks.app.amqp.queues[chord_tasks.DEFAULT](connection.default_channel).declare()
    for priority in (1, 9, 5, 0, 9):
        chord_tasks.note.apply_async((priority,), priority=priority)
    worker = one_at_a_time()
    with chord_tasks.app.connection_for_write() as connection, connection.SimpleQueue(chord_tasks.ORDER) as order:
        came = []
        for _ in range(5):
            message = order.get(timeout=DEADLINE_S)
            message.ack()
            came.append(message.payload)
    assert came == [9, 9, 5, 1, 0]
    worker.stop()

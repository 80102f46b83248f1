"""An application whose results are kept outside the broker, as chords need it, and whose queue has priorities."""

import os

from celery import Celery
from kombu import Queue

PREFIX = os.environ["INTEROP_CELERY_PREFIX"]
DEFAULT, ORDER = f"{PREFIX}.priorities", f"{PREFIX}.order"

app = Celery("chord_tasks", broker=os.environ["AMQP_URL"], backend=f"file://{os.environ['INTEROP_CELERY_RESULTS']}")
app.conf.update(
    task_queues=[Queue(DEFAULT, routing_key=DEFAULT, max_priority=10)],
    task_default_queue=DEFAULT,
    task_default_exchange="",
    task_default_routing_key=DEFAULT,
    task_default_priority=5,
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def note(priority):
    """Says when its turn came."""
    with app.connection_for_write() as connection, connection.SimpleQueue(ORDER) as order:
        order.put(priority)

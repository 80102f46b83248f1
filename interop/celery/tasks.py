"""A Celery application as people write them. The test imports it to send; the worker process imports it to work."""

import os

from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Queue

# One prefix for the queues of a run, so that runs do not meet.
PREFIX = os.environ["INTEROP_CELERY_PREFIX"]
DEFAULT, REJECTING, REJECTED = (f"{PREFIX}.{word}" for word in ("default", "rejecting", "rejected"))

app = Celery("tasks", broker=os.environ["AMQP_URL"], backend="rpc://")
app.conf.update(
    task_queues=[
        Queue(DEFAULT, Exchange(DEFAULT, type="direct"), routing_key="default"),
        Queue(
            REJECTING,
            Exchange(REJECTING, type="topic"),
            routing_key="rejecting.#",
            queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": REJECTED},
        ),
    ],
    task_default_queue=DEFAULT,
    task_default_exchange=DEFAULT,
    task_default_routing_key="default",
    task_routes={"tasks.refuse": {"queue": REJECTING, "routing_key": "rejecting.tasks"}},
    worker_prefetch_multiplier=2,
    worker_send_task_events=True,
    task_track_started=True,
    result_expires=60,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(a, b):
    return a + b


@app.task
def echo(value):
    return value


@app.task
def fail(text):
    raise ValueError(text)


@app.task(bind=True, max_retries=3, default_retry_delay=0.1)
def flaky(self, failures):
    """Fails so many times before it succeeds, and says how often it was tried again."""
    if self.request.retries < failures:
        raise self.retry(exc=ValueError("not yet"))
    return self.request.retries


@app.task(autoretry_for=(ValueError,), retry_backoff=0.05, retry_jitter=False, max_retries=2)
def hopeless():
    raise ValueError("never")


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def late(self, signal_queue):
    """Tells that it has begun. The first time it is delivered it never ends, the second time it does."""
    redelivered = self.request.delivery_info["redelivered"]
    with app.connection_for_write() as connection, connection.SimpleQueue(signal_queue) as signals:
        signals.put("again" if redelivered else "first")
    if not redelivered:
        import signal

        signal.pause()
    return "done by the second worker"


@app.task(bind=True, acks_late=True)
def refuse(self):
    raise Reject("not mine", requeue=False)

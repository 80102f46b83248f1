"""A Celery application on quorum queues: no global QoS, and countdowns that the broker keeps (native delayed delivery,
28 topic exchanges with queues that expire into the next one)."""

import os

from celery import Celery
from kombu import Exchange, Queue

QUEUE = os.environ["INTEROP_CELERY_PREFIX"] + ".quorum"

app = Celery("quorum_tasks", broker=os.environ["AMQP_URL"], backend="rpc://")
app.conf.update(
    # The worker finds out by itself what the queue's type means for it (worker_detect_quorum_queues).
    task_queues=[Queue(QUEUE, Exchange(QUEUE, type="topic"), routing_key=QUEUE, queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue=QUEUE,
    task_default_queue_type="quorum",
    task_default_exchange=QUEUE,
    task_default_exchange_type="topic",
    task_default_routing_key=QUEUE,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
)


@app.task
def add(a, b):
    return a + b


@app.task(bind=True, max_retries=3)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=1)
    return f"after {self.request.retries}"

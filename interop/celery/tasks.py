"""A Celery application as people write them."""
import os

from celery import Celery

app = Celery("tasks", broker=os.environ["AMQP_URL"].replace("amqp://", "pyamqp://", 1), backend="rpc://")
app.conf.update(task_default_queue=os.environ.get("CELERY_QUEUE", "celery"), broker_connection_retry_on_startup=True,
                task_acks_late=True, worker_prefetch_multiplier=2)


@app.task
def add(a, b):
    return a + b


@app.task(bind=True, max_retries=3)
def flaky(self, fail_times):
    if self.request.retries < fail_times:
        raise self.retry(countdown=0.1)
    return self.request.retries

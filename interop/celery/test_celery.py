"""A worker process, started and stopped by the test, and tasks with results over the broker."""
import os
import subprocess
import sys
import uuid

import pytest

os.environ.setdefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
os.environ["CELERY_QUEUE"] = "interop-celery-" + uuid.uuid4().hex

import tasks  # noqa: E402  (reads the environment)


@pytest.fixture(scope="module")
def worker():
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=solo", "--loglevel=INFO", "--without-gossip", "--without-mingle"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if " ready." in line:
            break
    else:
        raise AssertionError("the worker did not start")
    yield process
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.smoke
def test_a_task_and_its_result(worker):
    assert tasks.add.delay(2, 3).get(timeout=20) == 5


def test_many_tasks(worker):
    results = [tasks.add.delay(i, i) for i in range(50)]
    assert [r.get(timeout=20) for r in results] == [2 * i for i in range(50)]


def test_retries(worker):
    assert tasks.flaky.delay(2).get(timeout=20) == 2


def test_a_task_for_later(worker):
    assert tasks.add.apply_async((1, 1), countdown=1).get(timeout=20) == 2

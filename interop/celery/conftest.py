"""A Celery worker in a process of its own, started and stopped by the tests."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import uuid

import pytest

os.environ.setdefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
os.environ["INTEROP_CELERY_PREFIX"] = f"interop.celery.{uuid.uuid4().hex[:12]}"
results = tempfile.TemporaryDirectory()
os.environ["INTEROP_CELERY_RESULTS"] = results.name

import tasks  # noqa: E402  it reads the environment

# What has not come by then does not come.
DEADLINE_S = 30


class Worker:
    """`celery worker`. Its output is kept, to be shown when it does not start."""

    def __init__(self, app="tasks", processes=2):
        self.name = f"interop-{uuid.uuid4().hex[:8]}@localhost"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-n", self.name, "-c", str(processes), "-l", "info"]
        self._process = subprocess.Popen(
            command,
            cwd=os.path.dirname(__file__),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._wait_until_ready()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _wait_until_ready(self):
        seen = []
        while True:
            try:
                line = self._lines.get(timeout=DEADLINE_S)
            except queue.Empty:
                line = None
            if line is None:
                self.kill()
                pytest.fail("the worker did not start:\n" + "".join(seen))
            seen.append(line)
            if f"{self.name} ready." in line:
                return

    def stop(self):
        """A warm shutdown, as at a deployment: it ends by itself, and well."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(DEADLINE_S) == 0

    def kill(self):
        """The machine is gone: nothing is said to the broker."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE_S)


@pytest.fixture
def start_worker():
    """Starts workers; those that still run at the end are killed."""
    workers = []

    def start():
        workers.append(Worker())
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture(scope="module")
def worker():
    """The worker that most tests share, and its warm shutdown."""
    running = Worker()
    try:
        yield running
        running.stop()
    finally:
        running.kill()


@pytest.fixture(scope="session", autouse=True)
def clean_up():
    """Removes the durable queues and exchanges of this run."""
    yield
    with tasks.app.connection_for_write() as connection:
        channel = connection.channel()
        for name in (tasks.DEFAULT, tasks.REJECTING, tasks.REJECTED):
            channel.queue_delete(name)
            channel.exchange_delete(name)

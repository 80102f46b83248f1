"""Tasks through a broker and a real worker: results over rpc://, retries, ETA, remote control, events."""

import datetime
import threading
import time

import pytest
from celery import chain, group

import tasks
from conftest import DEADLINE_S


def result_of(sent):
    return sent.get(timeout=DEADLINE_S)


@pytest.mark.smoke
def test_a_task_and_its_result(worker):
    assert result_of(tasks.add.delay(2, 3)) == 5


def test_many_tasks(worker):
    sent = [tasks.add.delay(number, number) for number in range(200)]
    assert [result_of(each) for each in sent] == [2 * number for number in range(200)]


@pytest.mark.parametrize(
    "value", ["grüße", {"nested": [1, {"two": None}]}, "x" * 1_000_000, []], ids=["text", "nested", "large", "empty"]
)
def test_arguments_and_results_of_any_kind(worker, value):
    assert result_of(tasks.echo.delay(value)) == value


def test_a_failure_reaches_the_caller(worker):
    with pytest.raises(ValueError, match="on purpose"):
        result_of(tasks.fail.delay("on purpose"))


def test_retries(worker):
    assert result_of(tasks.flaky.delay(3)) == 3


def test_retries_run_out(worker):
    with pytest.raises(ValueError, match="never"):
        result_of(tasks.hopeless.delay())


def test_a_countdown(worker):
    start = time.monotonic()
    assert result_of(tasks.add.apply_async((1, 1), countdown=1.5)) == 2
    assert time.monotonic() - start >= 1.4


def test_tasks_for_later_do_not_hold_up_a_task_for_now(worker):
    """The worker holds tasks for later unacknowledged, within its prefetch of four."""
    eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
    later = [tasks.echo.apply_async((number,), eta=eta) for number in range(3)]
    assert result_of(tasks.echo.delay("now")) == "now"
    assert datetime.datetime.now(datetime.timezone.utc) < eta
    assert [result_of(each) for each in later] == [0, 1, 2]


def test_more_tasks_for_later_than_the_prefetch_allows(worker):
    later = [tasks.echo.apply_async((number,), countdown=1) for number in range(20)]
    assert [result_of(each) for each in later] == list(range(20))


def test_an_expired_task_is_revoked(worker):
    sent = tasks.echo.apply_async(("too late",), countdown=1, expires=0.1)
    with pytest.raises(Exception, match="expired"):
        result_of(sent)


def test_a_chain_and_a_group(worker):
    assert result_of(chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4)).apply_async()) == 10
    assert result_of(group(tasks.add.s(number, 1) for number in range(10)).apply_async()) == list(range(1, 11))


def test_a_rejected_task_is_dead_lettered(worker):
    with tasks.app.connection_for_write() as connection:
        with connection.SimpleQueue(tasks.REJECTED) as rejected:
            sent = tasks.refuse.delay()
            message = rejected.get(timeout=DEADLINE_S)
            message.ack()
    assert message.headers["id"] == sent.id
    [death] = message.headers["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == (tasks.REJECTING, "rejected", 1)
    assert (death["exchange"], death["routing-keys"]) == (tasks.REJECTING, ["rejecting.tasks"])


def test_remote_control(worker):
    """Broadcasts to the worker's own queue, and answers to a queue of ours."""
    control = tasks.app.control
    assert control.ping([worker.name], timeout=DEADLINE_S, limit=1) == [{worker.name: {"ok": "pong"}}]
    inspect = control.inspect([worker.name], timeout=DEADLINE_S, limit=1)
    assert {q["name"] for q in inspect.active_queues()[worker.name]} == {tasks.DEFAULT, tasks.REJECTING}
    assert "tasks.add" in inspect.registered()[worker.name]


def test_revoking_a_task(worker):
    sent = tasks.echo.apply_async(("never",), countdown=2)
    tasks.app.control.revoke(sent.id, reply=True, timeout=DEADLINE_S, limit=1, destination=[worker.name])
    with pytest.raises(Exception, match="revoked"):
        result_of(sent)


def test_events(worker):
    """A monitor sees a task go through its states."""
    seen, listening, done = [], threading.Event(), threading.Event()

    def on_event(event):
        seen.append((event["type"], event.get("uuid")))
        if event["type"] == "task-succeeded" and event["uuid"] == task_id:
            done.set()

    def monitor():
        with tasks.app.connection_for_read() as connection:
            receiver = tasks.app.events.Receiver(connection, handlers={"*": on_event})
            with receiver.consumer_context() as (consuming, _channel, _consumers):
                listening.set()
                while not done.is_set():
                    try:
                        consuming.drain_events(timeout=0.5)
                    except TimeoutError:
                        pass

    task_id = "interop-" + tasks.PREFIX
    thread = threading.Thread(target=monitor, daemon=True)
    thread.start()
    assert listening.wait(DEADLINE_S)
    tasks.echo.apply_async(("watched",), task_id=task_id).get(timeout=DEADLINE_S)
    assert done.wait(DEADLINE_S), seen
    thread.join(DEADLINE_S)
    assert [kind for kind, uuid in seen if uuid == task_id] == ["task-received", "task-started", "task-succeeded"]

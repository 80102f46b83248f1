"""What becomes of a task whose worker dies. In a file of its own: no other worker may run."""

import tasks
from conftest import DEADLINE_S


def test_a_task_survives_the_death_of_its_worker(start_worker):
    """acks_late: the first worker is killed in the middle of the task, the second one gets it, redelivered."""
    signals_name = f"{tasks.PREFIX}.signals"
    with tasks.app.connection_for_write() as connection, connection.SimpleQueue(signals_name) as signals:
        first = start_worker()
        sent = tasks.late.delay(signals_name)
        message = signals.get(timeout=DEADLINE_S)
        message.ack()
        assert message.payload == "first"
        first.kill()
        second = start_worker()
        message = signals.get(timeout=DEADLINE_S)
        message.ack()
        assert message.payload == "again"
        assert sent.get(timeout=DEADLINE_S) == "done by the second worker"
        second.stop()
    with tasks.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(signals_name)
        connection.default_channel.exchange_delete(signals_name)

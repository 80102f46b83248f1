"""Resource alarms: publishers are told and wait, consumers drain.

The disk is filled up to the limit of a broker that interop/run started (INTEROP_BALLAST names a folder on its disk, and
INTEROP_BALLAST_BYTES how much is too much); another broker's disk is left alone.
"""

import os
import pathlib
import time

import pytest

from support import DEADLINE_S, ready

ballast_dir = os.environ.get("INTEROP_BALLAST")


def until(condition):
    """Asks the broker again and again until the condition holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come in time"


def serves(connection, condition):
    """Looks at what has arrived, and then at the condition."""
    connection.process_data_events(0.05)
    return condition


@pytest.fixture
def full_disk():
    """Fills the disk when it is entered, and gives it back at the end or when it is told to."""
    path = pathlib.Path(ballast_dir) / "ballast"

    class Disk:
        def fill(self):
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, int(os.environ["INTEROP_BALLAST_BYTES"]))

        def free(self):
            path.unlink(missing_ok=True)

    disk = Disk()
    yield disk
    disk.free()


@pytest.mark.skipif(ballast_dir is None, reason="INTEROP_BALLAST is not set: the broker was not started by interop/run")
def test_a_full_disk_blocks_publishers_and_lets_consumers_drain(connect, queue, full_disk):
    publisher, consumer = connect(), connect()
    told = []
    publisher.add_on_connection_blocked_callback(lambda _, frame: told.append(frame.method.reason))
    publisher.add_on_connection_unblocked_callback(lambda _, frame: told.append("unblocked"))
    channel = publisher.channel()
    for i in range(10):
        channel.basic_publish("", queue, b"before %d" % i)
    drain = consumer.channel()
    until(lambda: ready(drain, queue) == 10)

    full_disk.fill()
    until(lambda: serves(publisher, told))
    assert told == ["low on disk"]
    channel.basic_publish("", queue, b"during")
    # A connection that has published nothing yet is blocked by its first publish.
    late = connect()
    late_told = []
    late.add_on_connection_blocked_callback(lambda _, frame: late_told.append(frame.method.reason))
    late.channel().basic_publish("", queue, b"late")
    until(lambda: serves(late, late_told))
    assert late_told == ["low on disk"]

    seen = [body for _, _, body in (drain.basic_get(queue, auto_ack=True) for _ in range(10))]
    assert seen == [b"before %d" % i for i in range(10)]
    # What triggered a block was read with it; what came after that was not.
    rest = [body for _, _, body in (drain.basic_get(queue, auto_ack=True) for _ in range(3)) if body]
    assert b"during" not in rest

    full_disk.free()
    until(lambda: serves(publisher, len(told) == 2))
    assert told == ["low on disk", "unblocked"]
    until(lambda: b"during" in (rest.append(drain.basic_get(queue, auto_ack=True)[2]) or rest))
    publisher.channel().close()

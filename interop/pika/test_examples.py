"""The examples in Python do what they say."""

import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "python"

pytestmark = pytest.mark.smoke

# The lines that each writes, in any order.
LINES = {
    "work_queue": [f"done: task {number}" for number in range(1, 7)],
    "publish_subscribe": [
        "all: customer.new happened",
        "all: order.paid happened",
        "all: order.placed happened",
        "orders: order.paid happened",
        "orders: order.placed happened",
    ],
    "rpc": ["2 squared is 4", "3 squared is 9", "4 squared is 16"],
    "retries": [
        "never works: parked after 3 tries",
        "never works: try 1 failed",
        "never works: try 2 failed",
        "works at the second try: done",
        "works at the second try: try 1 failed",
    ],
}


def test_each_example_is_run():
    assert {file.stem for file in EXAMPLES.glob("*.py")} == {"broker", *LINES}


@pytest.mark.parametrize("name", LINES)
def test_example(name):
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == LINES[name]

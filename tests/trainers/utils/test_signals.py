"""Signals that come where nothing is to be saved."""

import subprocess
import sys

import pytest

from tests.helpers.processes import PATIENCE

# Each drops what is raised in it.
COLLECTOR = "gc.callbacks.append(lambda *_: again or (again.append(1), signal.raise_signal({n})))"
PROGRAM = """
import gc, signal, time
from trainers.utils.signals import StopRequest
from trainers.utils import errors

again = []
try:
    with StopRequest().listening():
        exec({arrange!r})
        gc.collect()
        {then}
        time.sleep(600)
except errors.Interrupted as error:
    print("stopped by", error.signal_number)
"""


def _output(arrange: str, then: str = "") -> tuple[str, str]:
    source = PROGRAM.format(arrange=arrange, then=then)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("number", [2, 15])
def test_a_signal_during_a_callback_of_the_collector_is_not_lost(number: int) -> None:
    output, errors = _output(COLLECTOR.format(n=number))
    assert output == f"stopped by {number}" and not errors


def test_a_signal_during_a_finalizer_is_not_lost() -> None:
    cycle = "class Cycle:\n    def __del__(self): signal.raise_signal(15)\n"
    output, errors = _output(cycle + "Cycle().me = None\n", "Cycle()")
    assert output == "stopped by 15" and not errors


def test_other_exceptions_that_are_dropped_are_reported() -> None:
    wrong = "gc.callbacks.append(lambda *_: again or (again.append(1), 1 / 0))"
    output, errors = _output(wrong, "signal.raise_signal(15)")
    assert output == "stopped by 15" and "ZeroDivisionError" in errors

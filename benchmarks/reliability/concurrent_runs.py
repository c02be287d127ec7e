"""Two runs on one work directory: `python -m benchmarks.reliability.concurrent_runs`."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability import part
from benchmarks.reliability.part import Row
from benchmarks.reliability.small_runs import start
from benchmarks.reliability.small_runs import train
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.checkpoint_file import digest
from trainers.checkpointing.checkpoint_file import read_checkpoint

STEPS = 400
TRIES = 3
_REFUSAL = re.compile(
    r"^error: Another training \(process (\d+|unknown)\) is running in \S+ Wait for its end, stop "
    r"it, or choose another --workdir\.$",
    re.MULTILINE,
)


def measure(workdir: Path) -> Iterator[Row]:
    """Yields a row a situation."""
    reference = workdir / "alone"
    train(reference, total_steps=STEPS)
    expected = _last(reference)
    run = workdir / "run"
    held = sum(_second_is_refused(run, expected) for _ in range(TRIES))
    yield Row(
        "a second training while one runs: it refuses with status 2, and names the process and "
        "the hint; the first ends as if alone",
        TRIES,
        held,
    )
    held = sum(_one_of_two_wins(run, expected) for _ in range(TRIES))
    yield Row(
        "two started at the same moment: one refuses, the other ends as if alone", TRIES, held
    )
    held = sum(_is_free_after_a_kill(run, expected) for _ in range(TRIES))
    yield Row("the first killed by SIGKILL: the next goes on at once", TRIES, held)


def _second_is_refused(run: Path, expected: str) -> bool:
    shutil.rmtree(run, ignore_errors=True)
    first = start(run, total_steps=STEPS)
    _wait_for_a_checkpoint(run, first)
    second = train(run, total_steps=STEPS)
    found = _REFUSAL.search(second.stderr)
    refused = second.returncode == 2 and found is not None and found[1] == str(first.pid)
    first.communicate()
    return refused and first.returncode == 0 and _last(run) == expected


def _one_of_two_wins(run: Path, expected: str) -> bool:
    shutil.rmtree(run, ignore_errors=True)
    both = [start(run, total_steps=STEPS) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    refused = [bool(_REFUSAL.search(each)) for each in errors]
    states = sorted(process.returncode for process in both)
    return states == [0, 2] and sum(refused) == 1 and _last(run) == expected


def _is_free_after_a_kill(run: Path, expected: str) -> bool:
    shutil.rmtree(run, ignore_errors=True)
    first = start(run, total_steps=STEPS)
    _wait_for_a_checkpoint(run, first)
    first.kill()
    first.communicate()
    done = train(run, total_steps=STEPS)
    return done.returncode == 0 and "resuming at step" in done.stdout and _last(run) == expected


def _wait_for_a_checkpoint(run: Path, process: "subprocess.Popen[str]") -> None:
    while process.poll() is None and not checkpoint_steps(run / "checkpoints"):
        time.sleep(0.05)


def _last(run: Path) -> str:
    return digest(read_checkpoint(run / "checkpoints", STEPS))


if __name__ == "__main__":
    part.run("concurrent_runs", measure)

"""Two runs on one work directory: `python -m benchmarks.reliability.concurrent_runs`."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability import part
from benchmarks.reliability import small_runs
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.checkpoint_file import digest

STEPS = 400
TRIES = 3
_REFUSAL = re.compile(
    r"^error: Another training \(process (\d+|unknown)\) is running in \S+ Wait for its end, stop "
    r"it, or choose another --workdir\.$",
    re.MULTILINE,
)


def measure(workdir: Path) -> Iterator[part.Row]:
    expected = digest(small_runs.train_to_end(workdir / "alone", total_steps=STEPS))
    cases = {
        "a second training while one runs: it refuses with status 2, and names the process and "
        "the hint; the first ends as if alone": _second_is_refused,
        "two started at the same moment: one refuses, the other ends as if alone": _one_of_two_wins,
        "the first killed by SIGKILL: the next goes on at once": _is_free_after_a_kill,
    }
    run = workdir / "run"
    for case, holds in cases.items():
        held = 0
        for _ in range(TRIES):
            shutil.rmtree(run, ignore_errors=True)
            held += holds(run) and small_runs.digest_at(run, STEPS) == expected
        yield part.Row(case, TRIES, held)


def _second_is_refused(run: Path) -> bool:
    first = _start_until_a_checkpoint(run)
    second = small_runs.train(run, total_steps=STEPS)
    found = _REFUSAL.search(second.stderr)
    first.communicate()
    refused = second.returncode == 2 and found is not None and found[1] == str(first.pid)
    return refused and first.returncode == 0


def _one_of_two_wins(run: Path) -> bool:
    both = [small_runs.start(run, total_steps=STEPS) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    refused = [bool(_REFUSAL.search(each)) for each in errors]
    states = sorted(process.returncode for process in both)
    return states == [0, 2] and sum(refused) == 1


def _is_free_after_a_kill(run: Path) -> bool:
    first = _start_until_a_checkpoint(run)
    first.kill()
    first.communicate()
    done = small_runs.train(run, total_steps=STEPS)
    return done.returncode == 0 and "resuming at step" in done.stdout


def _start_until_a_checkpoint(run: Path) -> "subprocess.Popen[str]":
    process = small_runs.start(run, total_steps=STEPS)
    while process.poll() is None and not checkpoint_steps(run / "checkpoints"):
        time.sleep(0.05)
    return process


if __name__ == "__main__":
    part.run("concurrent_runs", measure)

"""Random configurations and flags: `python -m benchmarks.reliability.configurations`.

Each of 10,000 goes through the checks that a training makes before heavy work begins, and ends
accepted, or refused by a message that names the key, its value and what is allowed. 50 more are
real commands; what the checks accept ends as a dry run, which builds everything and takes a step.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import hypothesis

from benchmarks.reliability import part
from benchmarks.reliability import random_configurations
from benchmarks.reliability.checked_configurations import PATIENCE
from benchmarks.reliability.checked_configurations import Outcome
from benchmarks.reliability.checked_configurations import check
from benchmarks.reliability.checked_configurations import command_line
from benchmarks.reliability.checked_configurations import is_clear
from benchmarks.reliability.part import Row
from benchmarks.reliability.random_configurations import Setting
from benchmarks.reliability.small_runs import PATIENCE as COMMAND_PATIENCE

SETTINGS = 10_000
COMMANDS = 50
# Larger numbers may be right and need a larger machine.
_LARGEST = 20
_ROOT = Path(__file__).parents[2]


def measure(workdir: Path) -> Iterator[Row]:
    """Yields two rows."""
    yield check_many(SETTINGS, workdir)
    yield _run_commands(workdir)


def check_many(count: int, folder: Path) -> Row:
    """Checks random settings in this process.

    Args:
        count: How many.
        folder: Where the files go.
    """
    kinds: Counter[str] = Counter()
    slowest = 0.0

    def note(setting: Setting) -> None:
        nonlocal slowest
        outcome = check(setting, folder)
        slowest = max(slowest, outcome.seconds)
        kind = _judged(setting, outcome)
        kinds[kind] += 1
        if kind not in ("accepted", "refused"):
            print(f"{kind}: {outcome.message}\n  {setting}", flush=True)

    _draw(count, note)
    total = sum(kinds.values())
    return Row(
        f"{total:,} random configurations and flags: checked without a traceback within "
        f"{PATIENCE} s; each refusal names the key, its value and what is allowed",
        total,
        kinds["accepted"] + kinds["refused"],
        f"{kinds['accepted']:,} accepted, {kinds['refused']:,} refused, at most {slowest:.1f} s",
    )


def _judged(setting: Setting, outcome: Outcome) -> str:
    if outcome.seconds > PATIENCE:
        return "hanging"
    if outcome.kind == "refused" and not is_clear(setting, outcome.message):
        return "unclear"
    return outcome.kind


def _run_commands(folder: Path) -> Row:
    chosen = _choose(folder)
    held, statuses = 0, Counter[int]()
    for setting, outcome in chosen:
        try:
            done = _run(setting, folder)
        except subprocess.TimeoutExpired:
            print(f"hanging: {setting}", flush=True)
            continue
        statuses[done.returncode] += 1
        fine = _is_fine(done, outcome)
        held += fine
        if not fine:
            print(f"{done.returncode}: {done.stderr[-1500:]}\n  {setting}", flush=True)
    return Row(
        f"{COMMANDS} as commands, of numbers up to {_LARGEST}: no traceback, an end within "
        f"{COMMAND_PATIENCE} s; what is refused ends with status 2 and one line, the others as a "
        "dry run or with one line",
        COMMANDS,
        held,
        ", ".join(f"status {status}: {count}" for status, count in sorted(statuses.items())),
    )


def _run(setting: Setting, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs the training as a command, where and how `check` has checked it."""
    path = folder / "config.py"
    path.write_text(setting.file())
    command = [sys.executable, "-m", "trainers.train", *command_line(setting, folder)]
    return subprocess.run(
        [*command, "--dry_run"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=COMMAND_PATIENCE,
        check=False,
    )


def _choose(folder: Path) -> list[tuple[Setting, Outcome]]:
    """Returns settings of which half are accepted, with what the checks say of each."""
    chosen: dict[str, list[tuple[Setting, Outcome]]] = {"accepted": [], "refused": []}

    def note(setting: Setting) -> None:
        outcome = check(setting, folder)
        wanted = chosen.get(outcome.kind, [])
        if setting.changes and _is_small(setting) and len(wanted) < COMMANDS // 2:
            wanted.append((setting, outcome))

    _draw(40 * COMMANDS, note)
    return [*chosen["accepted"], *chosen["refused"]]


def _is_small(setting: Setting) -> bool:
    for change in setting.changes:
        try:
            number = float(change.value)
        except (TypeError, ValueError):
            continue
        if not abs(number) <= _LARGEST:
            return False
    return all("\0" not in argument for argument in setting.arguments())


def _is_fine(done: "subprocess.CompletedProcess[str]", outcome: Outcome) -> bool:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if "Traceback" in done.stderr or done.returncode not in (0, 1, 2):
        return False
    if outcome.kind == "refused":
        return done.returncode == 2 and len(errors) == 1
    return bool(done.returncode) == bool(errors)


def _draw(count: int, note: Callable[[Setting], None]) -> None:
    """Hands over settings, the same ones in each run."""

    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(random_configurations.settings())
    def draw(setting: Setting) -> None:
        note(setting)

    draw()


if __name__ == "__main__":
    part.run("configurations", measure)

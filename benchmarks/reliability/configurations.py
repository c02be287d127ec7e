"""Random configurations and flags: `python -m benchmarks.reliability.configurations`.

Most go through the checks that a training makes before heavy work begins; some are commands, which
end as a dry run if the checks accept them.
"""

import ast
import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import hypothesis
from absl import flags

from benchmarks.reliability import part
from benchmarks.reliability import random_configurations
from benchmarks.reliability import small_runs
from benchmarks.reliability.random_configurations import Change
from benchmarks.reliability.random_configurations import Setting
from trainers import train
from trainers.configuration.configuration import parse_config_flag
from trainers.preflight import check_configuration
from trainers.training.profiling import parse_profile_steps
from trainers.utils.errors import ConfigurationError

SETTINGS = 10_000
COMMANDS = 50
# Larger numbers may be right and need a larger machine.
_LARGEST = 20
_ROOT = Path(__file__).parents[2]

#: Seconds after which a check counts as hanging.
PATIENCE = 10
# How a message says what would be right.
_ALLOWED = re.compile(
    r"must|expect|needs?\b|takes|one of|at least|at most|between|known|did you mean|a name is|"
    r"choose|set |use |give|write|leave",
    re.IGNORECASE,
)
# Of a long value a message may show the beginning.
_SHOWN = 40


def measure(workdir: Path) -> Iterator[part.Row]:
    yield check_many(SETTINGS, workdir)
    yield _run_commands(workdir)


def check_many(count: int, folder: Path) -> part.Row:
    """Checks random settings in this process, with their files in a folder."""
    kinds: Counter[str] = Counter()
    slowest = 0.0

    def note(setting: Setting) -> None:
        nonlocal slowest
        outcome = _check(setting, folder)
        slowest = max(slowest, outcome.seconds)
        kind = _judged(setting, outcome)
        kinds[kind] += 1
        if kind not in ("accepted", "refused"):
            print(f"{kind}: {outcome.message}\n  {setting}", flush=True)

    _draw(count, note)
    total = sum(kinds.values())
    return part.Row(
        f"{total:,} random configurations and flags: checked without a traceback within "
        f"{PATIENCE} s; each refusal names the key, its value and what is allowed",
        total,
        kinds["accepted"] + kinds["refused"],
        f"{kinds['accepted']:,} accepted, {kinds['refused']:,} refused, at most {slowest:.1f} s",
    )


@dataclasses.dataclass(frozen=True)
class Outcome:
    #: accepted, refused or crashed.
    kind: str
    message: str
    seconds: float


def _command_line(setting: Setting, folder: Path) -> list[str]:
    return [f"--config={folder}/config.py", f"--workdir={folder}/run", *setting.arguments()]


def _check(setting: Setting, folder: Path) -> Outcome:
    """Reads the file and the command line, and checks them as the command does."""
    (folder / "config.py").write_text(setting.file())
    start = time.perf_counter()
    kind, message = "accepted", ""
    try:
        with contextlib.chdir(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _parse_and_check(["train", *_command_line(setting, folder)])
    except (ConfigurationError, flags.Error) as error:
        kind, message = "refused", str(error)
    except Exception as error:  # what a user would see as a traceback
        kind, message = "crashed", f"{type(error).__name__}: {error}"
    return Outcome(kind, message, time.perf_counter() - start)


def _parse_and_check(argv: list[str]) -> None:
    values = flags.FlagValues()
    train.define_flags(values)
    parse_config_flag(argv, values)
    check_configuration(values.config, values.workdir)
    parse_profile_steps(values.profile_steps)


def is_clear(setting: Setting, message: str) -> bool:
    """Tells whether a refusal names a key that was set, its value, and what is allowed."""
    return bool(_ALLOWED.search(message)) and any(_names(c, message) for c in setting.changes)


def _names(change: Change, message: str) -> bool:
    name = change.key.rpartition(".")[2]
    is_named = bool(name) and name in message
    unknown = f"Unknown flag --{change.key}." in message or any(
        f"{words} {form!r}" in message
        for words in ("Unknown configuration key", "has no field")
        for form in (change.key, name)
    )
    shown = message.lower()
    return unknown or (is_named and any(form.lower() in shown for form in _forms(change.value)))


def _forms(value: object) -> set[str]:
    text = str(value)
    forms = {text, repr(value), repr(text)[1:-1], *(() if text else ("none", "=:"))}
    forms.add(repr(re.split("[,@:]", text)[0].strip()))
    with contextlib.suppress(SyntaxError, ValueError):
        value = ast.literal_eval(text)
    forms |= {str(value), *((str(tuple(value)),) if isinstance(value, (list, dict)) else ())}
    if isinstance(value, (list, tuple)):
        forms |= set(map(str, value))  # a message may show the wrong one alone
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)  # type: ignore[arg-type]
        forms |= {f"{number:g}", str(number), str(int(number))}
    return {form[:_SHOWN] for form in forms if form} or {"''"}


def _judged(setting: Setting, outcome: Outcome) -> str:
    if outcome.seconds > PATIENCE:
        return "hanging"
    if outcome.kind == "refused" and not is_clear(setting, outcome.message):
        return "unclear"
    return outcome.kind


def _run_commands(folder: Path) -> part.Row:
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
    return part.Row(
        f"{COMMANDS} as commands, of numbers up to {_LARGEST}: no traceback, an end within "
        f"{small_runs.PATIENCE} s; what is refused ends with status 2 and one line, the others as "
        "a dry run or with one line",
        COMMANDS,
        held,
        ", ".join(f"status {status}: {count}" for status, count in sorted(statuses.items())),
    )


def _run(setting: Setting, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs the training as a command, where and how `_check` has checked it."""
    path = folder / "config.py"
    path.write_text(setting.file())
    command = [sys.executable, "-m", "trainers.train", *_command_line(setting, folder)]
    return subprocess.run(
        [*command, "--dry_run"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=small_runs.PATIENCE,
        check=False,
    )


def _choose(folder: Path) -> list[tuple[Setting, Outcome]]:
    """Returns settings of which half are accepted, with what the checks say of each."""
    chosen: dict[str, list[tuple[Setting, Outcome]]] = {"accepted": [], "refused": []}

    def note(setting: Setting) -> None:
        outcome = _check(setting, folder)
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
    errors = small_runs.error_lines(done)
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

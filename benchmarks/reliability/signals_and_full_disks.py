"""Signals, and disks that are full or gone.

Run it by `python -m benchmarks.reliability.signals_and_full_disks`.

Each case is the training command with one fault (`faulty_training`). After it the newest
checkpoint must be whole, what was printed must be one line that says what happened and what to
do, and the same command without the fault must end with the arrays of a run without faults.
"""

import dataclasses
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability import part
from benchmarks.reliability.part import Row
from benchmarks.reliability.small_runs import train
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.checkpoint_file import digest
from trainers.checkpointing.checkpoint_file import read_checkpoint

STEPS = 12
_MODULE = "benchmarks.reliability.faulty_training"


@dataclasses.dataclass(frozen=True)
class Stop:
    """A fault and what must be seen of it.

    Attributes:
        fault: As `faulty_training` takes it.
        status: Exit status; negative for the signal that has ended the process at once.
        words: What its one line must hold, beside the beginning `error: `; none for a process
            that is ended at once, which says nothing.
        keeps_run: Whether a checkpoint must be left.
    """

    fault: str
    status: int
    words: tuple[str, ...]
    keeps_run: bool = True


def signals(times: int) -> list[Stop]:
    """Returns SIGTERM and SIGINT, so many times, in a step, an evaluation and a save."""
    # Where a checkpoint before is sure to be finished.
    places = ("step:5", "evaluation:2", "save:2")
    if times == 2:
        return [
            Stop(f"signal:{number}:2:{place}", -number, ())
            for number in (signal.SIGTERM, signal.SIGINT)
            for place in places
        ]
    words = ("stopped by signal", "the checkpoint is saved", "the same command resumes")
    return [
        Stop(f"signal:{number}:1:{place}", 128 + number, words)
        for number in (signal.SIGTERM, signal.SIGINT)
        for place in places
    ]


_AGAIN = "run the same command again"
DISKS = {
    "a full disk": Stop("full:2", 1, ("No space left on device", "Free some space", _AGAIN)),
    "a file system that is read-only from now on": Stop(
        "read-only:2", 1, ("Read-only file system", "Make the file system writable", _AGAIN)
    ),
    "a limit of a file's size": Stop("limit:2", 1, ("File too large", "ulimit -f", _AGAIN)),
    "the work directory removed while steps are run": Stop(
        "removed:4", 1, ("No such file or directory", "has removed it", _AGAIN), keeps_run=False
    ),
}


def measure(workdir: Path) -> Iterator[Row]:
    """Yields a row an engine and number of signals, then one a kind of disk."""
    for engine in ("tensorflow", "jax"):
        expected = _reference(workdir, engine)
        for times in (1, 2):
            stops = signals(times)
            held = sum(holds(workdir / "run", stop, engine, expected) for stop in stops)
            how = "once" if times == 1 else "twice"
            after = (
                "the step is finished and saved, the status is 128 and the signal's number"
                if times == 1
                else "the second, after the line that asks for it, ends it at once"
            )
            yield Row(
                f"SIGTERM and SIGINT {how}, in a step, an evaluation and a save, {engine}: "
                f"{after}; the run goes on and ends as one never stopped",
                len(stops),
                held,
            )
    expected = _reference(workdir, "tensorflow")
    for name, stop in DISKS.items():
        held = holds(workdir / "run", stop, "tensorflow", expected)
        yield Row(
            f"{name}: one line with path and hint, status 1, the last checkpoint is whole and "
            "the run goes on from it",
            1,
            int(held),
        )


def holds(run: Path, stop: Stop, engine: str, expected: str) -> bool:
    """Brings about a fault in a new run, looks at what is left, and goes on.

    Args:
        run: The work directory, made anew.
        stop: The fault.
        engine: `tensorflow` or `jax`.
        expected: The digest of the last checkpoint of a run without faults.

    Returns:
        Whether all holds; if not, it prints why.
    """
    shutil.rmtree(run, ignore_errors=True)
    done = train(run, total_steps=STEPS, engine=engine, module=(_MODULE, stop.fault))
    steps = checkpoint_steps(run / "checkpoints")
    states = [digest(read_checkpoint(run / "checkpoints", step)) for step in steps]  # or it raises
    again = train(run, total_steps=STEPS, engine=engine)
    checks = {
        f"status {done.returncode}": done.returncode == stop.status,
        "message": _is_explained(done, stop),
        "checkpoints": bool(states) or not stop.keeps_run,
        "resumed": not states or f"resuming at step {steps[-1]}\n" in again.stdout,
        "same": not again.returncode and _last(run) == expected,
    }
    wrong = [name for name, held in checks.items() if not held]
    if wrong:
        print(f"{stop} {engine}: {wrong}\n{done.stderr[-2000:]}\n{again.stderr[-2000:]}")
    return not wrong


def _is_explained(done: "subprocess.CompletedProcess[str]", stop: Stop) -> bool:
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if "Traceback" in done.stderr:
        return False
    if not stop.words:
        return not lines
    return len(lines) == 1 and all(word in lines[0] for word in stop.words)


def _reference(workdir: Path, engine: str) -> str:
    run = workdir / f"never_stopped_{engine}"
    done = train(run, total_steps=STEPS, engine=engine)
    if done.returncode:
        raise SystemExit(done.stderr)
    return _last(run)


def _last(run: Path) -> str:
    return digest(read_checkpoint(run / "checkpoints", STEPS))


if __name__ == "__main__":
    part.run("signals_and_full_disks", measure)

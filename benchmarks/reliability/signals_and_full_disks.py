"""Signals and broken disks: `python -m benchmarks.reliability.signals_and_full_disks`."""

import dataclasses
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability import part
from benchmarks.reliability import small_runs
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.checkpoint_file import digest

STEPS = 12


@dataclasses.dataclass(frozen=True)
class Stop:
    """A fault, as `faulty_training` takes it, and what must be seen of it."""

    fault: str
    #: Negative for the signal that ends the process at once.
    status: int
    #: Of the one line; none for a process that is ended at once, which prints nothing.
    words: tuple[str, ...]
    #: Whether a checkpoint must be left.
    keeps_run: bool = True


def signals(times: int) -> list[Stop]:
    """Returns SIGTERM and SIGINT, so many times, in a step, an evaluation and a save."""
    # Where a checkpoint before is sure to be finished.
    places = ("step:5", "evaluation:2", "save:2")
    words = ("stopped by signal", "the checkpoint is saved", "the same command resumes")
    stops = []
    for number in (signal.SIGTERM, signal.SIGINT):
        status = 128 + number if times == 1 else -number
        for place in places:
            fault = f"signal:{number}:{times}:{place}"
            stops.append(Stop(fault, status, words if times == 1 else ()))
    return stops


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


def measure(workdir: Path) -> Iterator[part.Row]:
    expected = {}
    for engine in ("tensorflow", "jax"):
        run = workdir / f"never_stopped_{engine}"
        expected[engine] = digest(small_runs.train_to_end(run, total_steps=STEPS, engine=engine))
        for times in (1, 2):
            stops = signals(times)
            held = sum(_holds(workdir / "run", stop, engine, expected[engine]) for stop in stops)
            how = "once" if times == 1 else "twice"
            after = (
                "the step is finished and saved, the status is 128 and the signal's number"
                if times == 1
                else "the second, after the line that asks for it, ends it at once"
            )
            yield part.Row(
                f"SIGTERM and SIGINT {how}, in a step, an evaluation and a save, {engine}: "
                f"{after}; the run goes on and ends as one never stopped",
                len(stops),
                held,
            )
    for name, stop in DISKS.items():
        held = _holds(workdir / "run", stop, "tensorflow", expected["tensorflow"])
        yield part.Row(
            f"{name}: one line with path and hint, status 1, the last checkpoint is whole and "
            "the run goes on from it",
            1,
            int(held),
        )


def _holds(run: Path, stop: Stop, engine: str, expected: str) -> bool:
    """Brings about a fault in a new run, looks at what is left, and resumes."""
    shutil.rmtree(run, ignore_errors=True)
    done = small_runs.train(
        run, total_steps=STEPS, engine=engine, module=(small_runs.FAULTY, stop.fault)
    )
    steps = checkpoint_steps(run / "checkpoints")
    states = [small_runs.digest_at(run, step) for step in steps]  # or it raises
    again = small_runs.train(run, total_steps=STEPS, engine=engine)
    checks = {
        f"status {done.returncode}": done.returncode == stop.status,
        "message": _is_explained(done, stop),
        "checkpoints": bool(states) or not stop.keeps_run,
        "resumed": not states or f"resuming at step {steps[-1]}\n" in again.stdout,
        "same": not again.returncode and small_runs.digest_at(run, STEPS) == expected,
    }
    return part.all_hold(checks, f"{stop} {engine}", done.stderr[-2000:], again.stderr[-2000:])


def _is_explained(done: "subprocess.CompletedProcess[str]", stop: Stop) -> bool:
    lines = small_runs.error_lines(done)
    if "Traceback" in done.stderr:
        return False
    if not stop.words:
        return not lines
    return len(lines) == 1 and all(word in lines[0] for word in stop.words)


if __name__ == "__main__":
    part.run("signals_and_full_disks", measure)

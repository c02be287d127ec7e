"""Kills trainings at random moments: `python -m benchmarks.reliability.random_kills`.

Each subject trains once in peace. Then it trains again and again, and its process is ended
with SIGKILL at random moments: while it starts, in the midst of the training, at its end. The
same command resumes each time, until the run is finished; its checkpoints (`python -m
trainers.checkpoints`) and its rows of metrics.jsonl must be those of the first run, times
apart. Beside it the same is done to `keras.callbacks.BackupAndRestore`, whose weights at the
end are compared. Every kill is noted in the work directory, so that an interrupted measurement
goes on where it stopped. A kill takes 10 to 30 seconds on two idle cores. Also writes
`results/kills.csv`, a line a run.
"""

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.reliability import part
from benchmarks.reliability.killed_subjects import INTERVAL
from benchmarks.reliability.killed_subjects import SUBJECTS
from benchmarks.reliability.killed_subjects import Subject
from benchmarks.reliability.part import Row
from benchmarks.timing import environment
from benchmarks.timing import write_csv
from trainers.utils.reporting import read_metrics

#: Kills of each subject.
KILLS = 25
#: How often, and how many seconds after its beginning at the latest, each phase is hit.
PHASES = {"starting": (0.2, 12.0), "training": (0.6, 3.0), "ending": (0.2, 1.5)}


def measure(workdir: Path) -> Iterator[Row]:
    """Yields a row a subject; writes the CSV of all runs."""
    runs: list[dict[str, Any]] = []
    for subject in SUBJECTS:
        mine, notes = _kill_all(workdir / subject.name, subject)
        runs += mine
        write_csv("kills", runs)
        yield _row(subject, mine, notes)


def _row(subject: Subject, runs: list[dict[str, Any]], notes: "_Notes") -> Row:
    kills = notes.kills()
    same = sum(run["kills"] for run in runs if run["same"])
    redone = [end["redone"] for end in notes.ends if end["redone"] is not None]
    while_writing = sum(end["unfinished"] > 0 for end in kills)
    figures = f"{len(runs)} runs, the same at their end: {sum(run['same'] for run in runs)}"
    if subject.is_ours:
        damaged = sum(end["damaged"] for end in kills)
        figures += (
            f"; steps done again after a kill: at most {max(redone, default=0)}, of {INTERVAL} "
            f"between checkpoints; killed while one was written: {while_writing}; "
            f"damaged checkpoints: {damaged}"
        )
        words = "the run goes on and ends with the checksums and rows of one never killed"
    else:
        failed = sum(end["failed"] for end in notes.ends)
        figures += f"; restarts that failed on what was left: {failed}"
        words = "the same done to Keras' callback: the weights are those of one never killed"
    return Row(f"SIGKILL, {subject.kind}, {subject.engine}: {words}", len(kills), same, figures)


class _Notes:
    """Every end of a process so far, one a line: kills, and runs that have finished.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ends: list[dict[str, Any]] = read_metrics(path)

    def add(self, end: dict[str, Any]) -> None:
        """Notes one, and prints it."""
        self.ends.append(end)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(end) + "\n")
        print(end, flush=True)

    def kills(self, run: int | None = None) -> list[dict[str, Any]]:
        """Returns the kills of a run, or of all."""
        return [end for end in self.ends if end["phase"] and run in (None, end["run"])]

    def has_finished(self, run: int) -> bool:
        """Whether a run has come to its end, or cannot."""
        return any(end["run"] == run and not end["phase"] for end in self.ends)


def _kill_all(folder: Path, subject: Subject) -> tuple[list[dict[str, Any]], _Notes]:
    """Kills a subject as often as it takes; returns a dictionary a run."""
    reference = folder / "never_killed"
    if subject.start(reference).wait():
        raise SystemExit(f"{reference}: the training has failed.")
    expected = subject.end(reference)
    notes = _Notes(folder / "kills.jsonl")
    runs: list[dict[str, Any]] = []
    while sum(run["kills"] for run in runs) < KILLS:
        number = len(runs)
        workdir = folder / f"run_{number:03d}"
        _train_and_kill(workdir, subject, number, notes)
        ends = [end for end in notes.ends if end["run"] == number]
        kills = notes.kills(number)
        failed = any(end["failed"] for end in ends)
        runs.append(
            {
                "kind": subject.kind,
                "engine": subject.engine,
                "run": workdir.name,
                "kills": len(kills),
                **{f"kills_{p}": sum(kill["phase"] == p for kill in kills) for p in PHASES},
                "kills_while_writing": sum(kill["unfinished"] > 0 for kill in kills),
                "steps": subject.total_steps,
                "same": not failed and subject.end(workdir) == expected,
                **environment("tensorflow", "jax", "keras"),
            }
        )
        print(runs[-1], flush=True)
    return runs, notes


def _train_and_kill(workdir: Path, subject: Subject, run: int, notes: _Notes) -> None:
    """Runs the command until it ends by itself; without kills once there are enough."""
    reached = 0
    while not notes.has_finished(run):
        number = len(notes.kills())
        # A moment of its own for each kill, also after an interruption of this program.
        generator = random.Random(f"{subject.name} {number}")
        begin = time.time()
        process = subject.start(workdir)
        phase = None
        try:
            # Once killed after its last step it may end, or it would never come that far.
            if number < KILLS and subject.last_row(workdir) < subject.total_steps:
                phase = _kill_at_random(process, subject, workdir, generator)
            status = process.wait()
        finally:
            process.kill()
        if subject.is_ours and status not in (0, -signal.SIGKILL):
            raise SystemExit(f"{workdir}: the training has failed with status {status}.")
        resumed = subject.resumed_at(workdir)
        redone = None if resumed is None or not subject.is_ours else max(0, reached - resumed)
        end = {"run": run, "phase": phase if status == -signal.SIGKILL else None}
        end |= {"failed": status not in (0, -signal.SIGKILL), "redone": redone}
        notes.add({**end, **_left_behind(workdir, subject, begin)})
        reached = subject.last_row(workdir)


def _kill_at_random(
    process: "subprocess.Popen[bytes]", subject: Subject, workdir: Path, generator: random.Random
) -> str:
    """Kills a process some time into a phase that is drawn, and returns the phase."""
    names, weights = list(PHASES), [share for share, _ in PHASES.values()]
    (phase,) = generator.choices(names, weights)
    last, total = subject.last_row(workdir), subject.total_steps
    begins = {"starting": -1, "training": last + 1, "ending": total}
    # Rows after the last checkpoint are dropped at the start, and come again.
    while process.poll() is None and subject.last_row(workdir) < min(begins[phase], total):
        time.sleep(0.05)
    try:
        process.wait(generator.uniform(0, PHASES[phase][1]))
    except subprocess.TimeoutExpired:
        process.kill()
    return phase


def _left_behind(workdir: Path, subject: Subject, begin: float) -> dict[str, Any]:
    """Returns what a process has left: damaged checkpoints, and unfinished ones.

    Args:
        workdir: Of the run.
        subject: What was killed.
        begin: When the process began; older unfinished ones are of others.
    """
    unfinished = (workdir / "checkpoints").glob(".*")
    return {
        "damaged": sum(line.split()[1] != "ok" for line in subject.checkpoints(workdir)),
        "unfinished": sum(path.stat().st_mtime > begin for path in unfinished),
    }


if __name__ == "__main__":
    part.run("random_kills", measure)

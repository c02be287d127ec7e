"""Kills trainings at random moments: `python -m benchmarks.reliability.random_kills`.

Also writes `results/kills.csv`, one row per run. A kill takes 10 to 30 seconds on two idle cores;
an interrupted measurement resumes.
"""

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.reliability import part
from benchmarks.reliability.small_runs import last_step
from benchmarks.timing import environment
from benchmarks.timing import write_csv
from trainers.utils.reporting import read_metrics

#: Kills of each subject.
KILLS = 25
#: How often, and how many seconds after its beginning at the latest, each phase is hit.
PHASES = {"starting": (0.2, 12.0), "training": (0.6, 3.0), "ending": (0.2, 1.5)}

#: Steps between two checkpoints, of all of them.
INTERVAL = 4
_CONFIGS = Path(__file__).parents[2] / "trainers" / "configs"
_COMMON = (
    "--strategy=one_device",
    # Intervals without a common divisor: most checkpoints come in the midst of a row.
    "--config.log_steps=7",
    f"--config.checkpoint_steps={INTERVAL}",
    "--config.eval_steps=55",
    "--config.keep_best_metric=accuracy",
    "--config.model.dropout=0.1",
    "--config.data.mixup_alpha=0.2",
    "--config.ema_decay=0.9",
)
_KINDS = {
    "image": (f"--config={_CONFIGS / 'digits.py'}",),
    "video": (
        f"--config={_CONFIGS / 'demo_video.py'}",
        "--config.batch_size=8",
        "--config.model.name=vivit_ti8x4_d2_tl4at1",
        "--config.model.width=24",
        "--config.model.mlp_dim=48",
    ),
}
#: Parts of metrics.jsonl that do not follow from the configuration.
TIMES = {"steps_per_second", "images_per_second", "data_wait"}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A training that can be killed and started again."""

    #: `image` or `video`.
    kind: str
    #: `tensorflow`, `jax`, or `BackupAndRestore` of Keras on TensorFlow.
    engine: str
    total_steps: int

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.engine}"

    @property
    def is_ours(self) -> bool:
        return self.engine != "BackupAndRestore"

    def start(self, workdir: Path) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        if self.is_ours:
            command = ["trainers.train", *_KINDS[self.kind], *_COMMON, f"--engine={self.engine}"]
            command += [f"--config.total_steps={self.total_steps}", f"--workdir={workdir}"]
            environment["KERAS_BACKEND"] = self.engine
        else:
            command = ["benchmarks.reliability.backup_and_restore", str(workdir)]
            command += [str(self.total_steps), str(INTERVAL)]
        # Its output is of interest only if it fails without a kill.
        workdir.mkdir(parents=True, exist_ok=True)
        with open(workdir.with_suffix(".log"), "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command], stdout=log, stderr=log, env=environment
            )

    def resumed_at(self, workdir: Path) -> int | None:
        """Returns where the latest start resumed; None if it has not come that far."""
        text = workdir.with_suffix(".log").read_text(errors="replace")
        found = re.search(r"^resuming at step (\d+)$", text, re.MULTILINE)
        if found:
            return int(found[1])
        # A training from the beginning describes the model before the first step.
        return 0 if " MACs a" in text else None

    def end(self, workdir: Path) -> list[str]:
        """Returns what a finished run has come to: lines with checksums, and rows."""
        if not self.is_ours:
            return [(workdir / "weights.sha256").read_text()]
        rows = read_metrics(workdir / "metrics.jsonl")
        kept = [str({name: row[name] for name in sorted(row.keys() - TIMES)}) for row in rows]
        return [*self.checkpoints(workdir), *kept]

    def checkpoints(self, workdir: Path) -> list[str]:
        """Returns the lines of `python -m trainers.checkpoints`; none without checkpoints."""
        if not self.is_ours or not any((workdir / "checkpoints").glob("step_*")):
            return []
        command = [sys.executable, "-m", "trainers.checkpoints", f"--workdir={workdir}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()


SUBJECTS = (
    Subject("image", "tensorflow", 300),
    Subject("image", "jax", 300),
    Subject("video", "tensorflow", 150),
    Subject("video", "jax", 150),
    Subject("image", "BackupAndRestore", 300),
)


def measure(workdir: Path) -> Iterator[part.Row]:
    runs: list[dict[str, Any]] = []
    for subject in SUBJECTS:
        mine, notes = _kill_all(workdir / subject.name, subject)
        runs += mine
        write_csv("kills", runs)
        yield _row(subject, mine, notes)


def _row(subject: Subject, runs: list[dict[str, Any]], notes: "_Notes") -> part.Row:
    kills = notes.kills()
    same = [run for run in runs if run["same"]]
    figures = f"{len(runs)} runs, the same at their end: {len(same)}"
    if subject.is_ours:
        redone = [end["redone"] for end in notes.ends if end["redone"] is not None]
        figures += (
            f"; steps done again after a kill: at most {max(redone, default=0)}, of {INTERVAL} "
            "between checkpoints; killed while one was written: "
            f"{sum(end['unfinished'] > 0 for end in kills)}; "
            f"damaged checkpoints: {sum(end['damaged'] for end in kills)}"
        )
        words = "the run goes on and ends with the checksums and rows of one never killed"
    else:
        failed = sum(end["failed"] for end in notes.ends)
        figures += f"; restarts that failed on what was left: {failed}"
        words = "the same done to Keras' callback: the weights are those of one never killed"
    case = f"SIGKILL, {subject.kind}, {subject.engine}: {words}"
    return part.Row(case, len(kills), sum(run["kills"] for run in same), figures)


class _Notes:
    """A file of every end of a process so far: kills, and runs that have finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ends: list[dict[str, Any]] = read_metrics(path)

    def add(self, end: dict[str, Any]) -> None:
        self.ends.append(end)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(end) + "\n")
        print(end, flush=True)

    def kills(self, run: int | None = None) -> list[dict[str, Any]]:
        return [end for end in self.ends if end["phase"] and run in (None, end["run"])]

    def has_finished(self, run: int) -> bool:
        """Tells whether a run has come to its end, or cannot."""
        return any(end["run"] == run and not end["phase"] for end in self.ends)


def _kill_all(folder: Path, subject: Subject) -> tuple[list[dict[str, Any]], _Notes]:
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
        kills = notes.kills(number)
        failed = any(end["failed"] for end in notes.ends if end["run"] == number)
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
    """Runs the command until it ends without a kill; after enough kills, it is only run."""
    reached = 0
    while not notes.has_finished(run):
        number = len(notes.kills())
        # Another moment for each kill, also after an interruption of this program.
        generator = random.Random(f"{subject.name} {number}")
        begin = time.time()
        process = subject.start(workdir)
        phase = None
        try:
            # Once killed after its last step it may end, or it would never come that far.
            if number < KILLS and last_step(workdir) < subject.total_steps:
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
        reached = last_step(workdir)


def _kill_at_random(
    process: "subprocess.Popen[bytes]", subject: Subject, workdir: Path, generator: random.Random
) -> str:
    """Kills a process some time into a phase that is drawn, and returns the phase."""
    names, weights = list(PHASES), [share for share, _ in PHASES.values()]
    (phase,) = generator.choices(names, weights)
    last, total = last_step(workdir), subject.total_steps
    begins = {"starting": -1, "training": last + 1, "ending": total}
    # Rows after the last checkpoint are dropped at the start, and come again.
    while process.poll() is None and last_step(workdir) < min(begins[phase], total):
        time.sleep(0.05)
    try:
        process.wait(generator.uniform(0, PHASES[phase][1]))
    except subprocess.TimeoutExpired:
        process.kill()
    return phase


def _left_behind(workdir: Path, subject: Subject, begin: float) -> dict[str, Any]:
    """Counts the damaged checkpoints, and those left unfinished since a process began."""
    unfinished = (workdir / "checkpoints").glob(".*")
    return {
        "damaged": sum(line.split()[1] != "ok" for line in subject.checkpoints(workdir)),
        "unfinished": sum(path.stat().st_mtime > begin for path in unfinished),
    }


if __name__ == "__main__":
    part.run("random_kills", measure)

"""Kills a training many times, and compares it with one that was never killed.

    python -m benchmarks.kills --kills=100 [--workdir=DIR] [--seed=0]

Trains trainers/configs/digits.py once in peace. Then trains the same again and again, and
ends the process with SIGKILL at random moments: while it starts, in the midst of the
training, at its end. The same command goes on each time, until the run is finished; its
checkpoints (`python -m trainers.checkpoints`) and its rows of metrics.jsonl must be those
of the first one, times apart. Writes `results/kills.csv`, a line a run; the exit status is
1 if one differs. Every kill is noted in the work directory, so an interrupted benchmark
goes on where it stopped. A kill takes about 15 seconds on two idle cores.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import app
from absl import flags

from benchmarks.measuring import environment
from benchmarks.measuring import write_csv
from trainers.reporting import read_metrics

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "workdir/kills", "Where the runs go.")
flags.DEFINE_integer("kills", 100, "How many kills in all.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the random moments.")

TOTAL_STEPS = 300
CONFIG = [
    "--config=trainers/configs/digits.py",
    f"--config.total_steps={TOTAL_STEPS}",
    # Intervals without a common divisor: most checkpoints come in the midst of a row.
    "--config.log_steps=7",
    "--config.checkpoint_steps=4",
    "--config.eval_steps=55",
    "--config.keep_best_metric=accuracy",
    "--config.model.dropout=0.1",
    "--config.data.mixup_alpha=0.2",
    "--config.ema_decay=0.9",
]
#: How often, and how many seconds after its beginning at the latest, each phase is hit.
PHASES = {"starting": (0.2, 10.0), "training": (0.6, 3.0), "ending": (0.2, 1.5)}
TIMES = {"steps_per_second", "images_per_second", "data_wait"}


def main(argv: list[str]) -> None:
    """Trains in peace, kills, compares and writes the CSV."""
    del argv
    workdir = Path(FLAGS.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    reference = workdir / "never_killed"
    _train(reference).communicate()
    notes = _Notes(workdir / "kills.jsonl")
    rows: list[dict[str, Any]] = []
    while not rows or sum(row["kills"] for row in rows) < FLAGS.kills:
        run = len(rows)
        _train_and_kill(workdir / f"run_{run:03d}", run, notes)
        rows.append(_compare(workdir / f"run_{run:03d}", reference, notes.kills(run)))
        print(rows[-1], flush=True)
        write_csv("kills", rows)
    sys.exit(not all(row["same_arrays"] and row["same_rows"] for row in rows))


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

    def has_trained(self, run: int) -> bool:
        """Whether a run has been killed with its last checkpoint written."""
        return any(end["newest"] == TOTAL_STEPS for end in self.kills(run))

    def has_finished(self, run: int) -> bool:
        """Whether a run has come to its end."""
        return any(end["run"] == run and not end["phase"] for end in self.ends)


def _train(workdir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainers.train", *CONFIG, f"--workdir={workdir}"]
    return subprocess.Popen([*command, "--strategy=one_device"], stdout=subprocess.DEVNULL)


def _train_and_kill(workdir: Path, run: int, notes: _Notes) -> None:
    """Runs the command until it ends by itself; without kills once there are enough."""
    while not notes.has_finished(run):
        number = len(notes.kills())
        # A moment of its own for each kill, also after an interruption of this program.
        generator = random.Random(f"{FLAGS.seed} {number}")
        begin = time.time()
        process = _train(workdir)
        phase = None
        try:
            # Once killed after its last step it may end, or it would never come that far.
            if number < FLAGS.kills and not notes.has_trained(run):
                phase = _kill_at_random(process, workdir, generator)
            status = process.wait()
        finally:
            process.kill()
        if status not in (0, -signal.SIGKILL):
            raise SystemExit(f"{workdir}: the training has failed with status {status}.")
        killed = phase if status else None
        notes.add({"run": run, "phase": killed, **_left_behind(workdir, begin)})


def _kill_at_random(
    process: subprocess.Popen[bytes], workdir: Path, generator: random.Random
) -> str:
    """Kills a process some time into a phase that is drawn, and returns the phase."""
    names, weights = list(PHASES), [share for share, _ in PHASES.values()]
    (phase,) = generator.choices(names, weights)
    begins = {"starting": -1, "training": _last_row(workdir) + 1, "ending": TOTAL_STEPS}
    # Rows after the last checkpoint are dropped at the start, and come again.
    while process.poll() is None and _last_row(workdir) < min(begins[phase], TOTAL_STEPS):
        time.sleep(0.05)
    try:
        process.wait(generator.uniform(0, PHASES[phase][1]))
    except subprocess.TimeoutExpired:
        process.kill()
    return phase


def _last_row(workdir: Path) -> int:
    rows = read_metrics(workdir / "metrics.jsonl")
    return int(rows[-1]["step"]) if rows else 0


def _left_behind(workdir: Path, begin: float) -> dict[str, Any]:
    """Returns what a process has left: its newest checkpoint, damaged and unfinished ones.

    Args:
        workdir: Of the run.
        begin: When the process began; older unfinished ones are of others.
    """
    folder = workdir / "checkpoints"
    lines = _checkpoints(workdir) if any(folder.glob("step_*")) else []
    return {
        "newest": int(lines[-1].split()[0]) if lines else 0,
        "damaged": sum(line.split()[1] != "ok" for line in lines),
        "unfinished": sum(path.stat().st_mtime > begin for path in folder.glob(".*")),
    }


def _checkpoints(workdir: Path) -> list[str]:
    command = [sys.executable, "-m", "trainers.checkpoints", f"--workdir={workdir}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return output.splitlines()


def _compare(workdir: Path, reference: Path, kills: list[dict[str, Any]]) -> dict[str, Any]:
    lines = _checkpoints(workdir)
    return {
        "run": workdir.name,
        "kills": len(kills),
        **{f"kills_{phase}": sum(kill["phase"] == phase for kill in kills) for phase in PHASES},
        "kills_while_writing": sum(kill["unfinished"] > 0 for kill in kills),
        "damaged": sum(kill["damaged"] for kill in kills),
        "steps": TOTAL_STEPS,
        "same_arrays": lines == _checkpoints(reference),
        "same_rows": _rows(workdir) == _rows(reference),
        "sha256": lines[-1].split()[2],
        **environment("tensorflow", "keras"),
    }


def _rows(workdir: Path) -> list[dict[str, Any]]:
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{name: row[name] for name in row.keys() - TIMES} for row in rows]


if __name__ == "__main__":
    app.run(main)

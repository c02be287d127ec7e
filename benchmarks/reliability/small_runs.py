"""Small trainings by the command that users run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.checkpoint_file import digest
from trainers.checkpointing.checkpoint_file import read_checkpoint
from trainers.utils.reporting import read_metrics

FAULTY = "benchmarks.reliability.faulty_training"
_CONFIG = Path(__file__).parents[2] / "trainers" / "configs" / "digits.py"
_FLAGS = (
    "--strategy=one_device",
    "--config.batch_size=32",
    "--config.log_steps=2",
    "--config.checkpoint_steps=4",
    "--config.eval_steps=6",
    "--config.keep_checkpoints=3",
)
#: Seconds after which a command counts as hanging.
PATIENCE = 1800


def start(
    workdir: Path,
    *flags: str,
    total_steps: int,
    engine: str = "tensorflow",
    module: tuple[str, ...] = ("trainers.train",),
    config: Path = _CONFIG,
) -> "subprocess.Popen[str]":
    """Starts a training with a checkpoint after every four steps.

    Flags replace those of the small run. The module is the command, or `FAULTY` with a fault.
    """
    command = [sys.executable, "-m", *module, f"--config={config}", *_FLAGS]
    command += [f"--config.total_steps={total_steps}", f"--engine={engine}", *flags]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        env={**os.environ, "KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(workdir: Path, *flags: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Starts a training, as `start` does, and waits for its end."""
    process = start(workdir, *flags, **options)
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def train_to_end(run: Path, *flags: str, total_steps: int, **options: Any) -> Arrays:
    """Trains as `train` does, without a failure; returns the arrays of the last checkpoint."""
    done = train(run, *flags, total_steps=total_steps, **options)
    if done.returncode:
        raise SystemExit(done.stderr)
    return read_checkpoint(run / "checkpoints", total_steps)


def digest_at(run: Path, step: int) -> str:
    return digest(read_checkpoint(run / "checkpoints", step))


def last_step(run: Path) -> int:
    """Returns the last step in metrics.jsonl, 0 if there is none."""
    rows = read_metrics(run / "metrics.jsonl")
    return int(rows[-1]["step"]) if rows else 0


def error_lines(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]

"""Small trainings by the command that users run."""

import os
import subprocess
import sys
from pathlib import Path

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


def train(
    workdir: Path,
    *flags: str,
    total_steps: int,
    engine: str = "tensorflow",
    module: tuple[str, ...] = ("trainers.train",),
    config: Path = _CONFIG,
) -> "subprocess.CompletedProcess[str]":
    """Trains and waits for the end.

    Args:
        workdir: The work directory.
        flags: More of them, which replace those of the small run.
        total_steps: Length of the training; a checkpoint after every four.
        engine: `tensorflow` or `jax`.
        module: What to run: the command, or one that brings about a fault in it, with its
            arguments.
        config: The configuration file.

    Raises:
        subprocess.TimeoutExpired: If it hangs.
    """
    process = start(
        workdir, *flags, total_steps=total_steps, engine=engine, module=module, config=config
    )
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start(
    workdir: Path,
    *flags: str,
    total_steps: int,
    engine: str = "tensorflow",
    module: tuple[str, ...] = ("trainers.train",),
    config: Path = _CONFIG,
) -> "subprocess.Popen[str]":
    """Starts a training; as for `train`."""
    command = [sys.executable, "-m", *module, f"--config={config}", *_FLAGS]
    backend = {"KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen(
        [
            *command,
            f"--config.total_steps={total_steps}",
            f"--engine={engine}",
            *flags,
            f"--workdir={workdir}",
        ],
        env={**os.environ, **backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

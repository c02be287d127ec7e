"""NaN and infinity at a chosen step: `python -m benchmarks.reliability.not_finite`.

A number in the input, the loss or the gradient of a step is NaN or infinite. The training must
end with status 1 within its logging interval, its message must name that very step and the
first tensor that is bad, and its newest checkpoint must be whole, finite and from before.
"""

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.reliability import part
from benchmarks.reliability.part import Row
from benchmarks.reliability.small_runs import train
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.checkpoint_file import read_checkpoint
from trainers.utils.reporting import read_metrics

STEPS = 24
LOG_STEPS = 5
TRIES = 2
_MODULE = "benchmarks.reliability.faulty_training"
_TENSORS = {
    "input": "the normalised input",
    "loss": "the loss",
    "gradient": "the gradient of head/bias",
}
_MESSAGE = re.compile(
    r"error: The training has diverged: the (?:loss|gradient norm) is (?:nan|inf|-inf) at step "
    r"(\d+); the first tensor with (NaN|infinity) in it is (.+?)\. .*the last checkpoint is "
    r"untouched\."
)


def measure(workdir: Path) -> Iterator[Row]:
    """Yields a row an engine and place."""
    generator = random.Random(0)
    for engine in ("tensorflow", "jax"):
        for where in _TENSORS:
            held = 0
            for value in ("nan", "inf"):
                for _ in range(TRIES):
                    step = generator.randint(1, STEPS)
                    held += holds(workdir / "run", value, where, step, engine)
            yield Row(
                f"NaN or infinity in the {where} of a random step, {engine}: ends within a "
                "logging interval with status 1, names the step and the tensor, keeps the last "
                "finite checkpoint",
                2 * TRIES,
                held,
            )


def holds(run: Path, value: str, where: str, step: int, engine: str) -> bool:
    """Trains anew with a bad number at a step.

    Args:
        run: The work directory.
        value: `nan` or `inf`.
        where: `input`, `loss` or `gradient`.
        step: Which, from 1.
        engine: `tensorflow` or `jax`.

    Returns:
        Whether all holds; if not, it prints why.
    """
    shutil.rmtree(run, ignore_errors=True)
    fault = f"bad:{value}:{where}:{step}"
    flags = (f"--config.log_steps={LOG_STEPS}", "--config.eval_steps=0")
    done = train(run, *flags, total_steps=STEPS, engine=engine, module=(_MODULE, fault))
    found = _MESSAGE.search(done.stderr)
    kind = {"nan": "NaN", "inf": "infinity"}[value]
    rows = read_metrics(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
    checks = {
        "status": done.returncode == 1 and "Traceback" not in done.stderr,
        "message": found is not None and found.groups() == (str(step), kind, _TENSORS[where]),
        "stopped in time": all(row["step"] < step for row in rows),
        "checkpoints": _are_finite(run, step),
    }
    wrong = [name for name, held in checks.items() if not held]
    if wrong:
        print(f"{fault} {engine}: {wrong}\n{done.stderr[-2000:]}")
    return not wrong


def _are_finite(run: Path, step: int) -> bool:
    """Whether all checkpoints before the step are there, and no others, all finite."""
    steps = checkpoint_steps(run / "checkpoints")
    expected = [each for each in range(4, step, 4)][-3:]
    return steps == expected and all(
        np.isfinite(array).all()
        for each in steps
        for array in read_checkpoint(run / "checkpoints", each).values()
    )


if __name__ == "__main__":
    part.run("not_finite", measure)

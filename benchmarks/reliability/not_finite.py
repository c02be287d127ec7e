"""NaN and infinity at a chosen step: `python -m benchmarks.reliability.not_finite`."""

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.reliability import part
from benchmarks.reliability import small_runs
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.checkpoint_file import read_checkpoint
from trainers.utils.reporting import read_metrics

STEPS = 24
LOG_STEPS = 5
TRIES = 2
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


def measure(workdir: Path) -> Iterator[part.Row]:
    generator = random.Random(0)
    for engine in ("tensorflow", "jax"):
        for where in _TENSORS:
            held = 0
            for value in ("nan", "inf"):
                for _ in range(TRIES):
                    step = generator.randint(1, STEPS)
                    held += _holds(workdir / "run", value, where, step, engine)
            yield part.Row(
                f"NaN or infinity in the {where} of a random step, {engine}: ends within a "
                "logging interval with status 1, names the step and the tensor, keeps the last "
                "finite checkpoint",
                2 * TRIES,
                held,
            )


def _holds(run: Path, value: str, where: str, step: int, engine: str) -> bool:
    """Trains from the beginning with a bad number at a step, from 1."""
    shutil.rmtree(run, ignore_errors=True)
    fault = f"bad:{value}:{where}:{step}"
    flags = (f"--config.log_steps={LOG_STEPS}", "--config.eval_steps=0")
    done = small_runs.train(
        run, *flags, total_steps=STEPS, engine=engine, module=(small_runs.FAULTY, fault)
    )
    found = _MESSAGE.search(done.stderr)
    kind = {"nan": "NaN", "inf": "infinity"}[value]
    rows = read_metrics(run / "metrics.jsonl")
    checks = {
        "status": done.returncode == 1 and "Traceback" not in done.stderr,
        "message": found is not None and found.groups() == (str(step), kind, _TENSORS[where]),
        "stopped in time": all(row["step"] < step for row in rows),
        "checkpoints": _are_finite(run, step),
    }
    return part.all_hold(checks, f"{fault} {engine}", done.stderr[-2000:])


def _are_finite(run: Path, step: int) -> bool:
    """Tells whether all checkpoints before the step are there, and no others, all finite."""
    steps = checkpoint_steps(run / "checkpoints")
    expected = [each for each in range(4, step, 4)][-3:]
    return steps == expected and all(
        np.isfinite(array).all()
        for each in steps
        for array in read_checkpoint(run / "checkpoints", each).values()
    )


if __name__ == "__main__":
    part.run("not_finite", measure)

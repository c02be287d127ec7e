"""The same training again: `python -m benchmarks.reliability.determinism`.

On other numbers of cores and devices sums are taken in another order.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.reliability import part
from benchmarks.reliability.small_runs import train_to_end
from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.checkpoint_file import digest
from trainers.utils.reporting import read_metrics

STEPS = 40
TOLERANCE = 1e-5
TIMES = 5
# AdamW divides each gradient by its own size: where it is rounding alone, as of the biases of
# keys, which change no softmax, the step is as large as any. SGD leaves rounding small.
_OPTIMIZERS = {
    "AdamW": (),
    "SGD": ("--config.optimizer.name=sgd", "--config.optimizer.learning_rate=0.05"),
}


class End(NamedTuple):
    """What a training ended with: the last checkpoint, and the losses of all rows."""

    arrays: Arrays
    losses: list[float]


def measure(workdir: Path) -> Iterator[part.Row]:
    for engine in ("tensorflow", "jax"):
        run = workdir / "run"
        ends = [_end(run, engine, "--config.model.dropout=0.2") for _ in range(TIMES)]
        digests = [digest(each.arrays) for each in ends]
        yield part.Row(
            f"{engine}: {STEPS} steps with dropout, the same command again: weights, optimizer "
            "and sums are the same bit for bit",
            TIMES - 1,
            sum(each == digests[0] for each in digests[1:]),
        )
        for optimizer, flags in _OPTIMIZERS.items():
            yield _on_other_devices(run, engine, optimizer, flags)


def _on_other_devices(run: Path, engine: str, optimizer: str, flags: tuple[str, ...]) -> part.Row:
    flags = ("--config.model.dropout=0.0", *flags)
    reference = _end(run, engine, *flags)
    others = {"one core": _on_one_core(run, engine, *flags)}
    for count in (2, 4):
        split = ("--strategy=auto", f"--virtual_devices={count}")
        others[f"{count} devices"] = _end(run, engine, *flags, *split)
    weights = {name: _of_weights(reference, end) for name, end in others.items()}
    losses = {name: _of_losses(reference, end) for name, end in others.items()}
    compared = losses if optimizer == "AdamW" else weights
    what = "every loss is that" if compared is losses else "the weights are those"
    return part.Row(
        f"{engine}: {STEPS} steps of {optimizer} without dropout on one core, on 2 and on 4 "
        f"devices: {what} of all cores and one device, to {TOLERANCE:.0e}",
        len(compared),
        sum(each <= TOLERANCE for each in compared.values()),
        f"losses: {_listed(losses)}; weights, of the largest: {_listed(weights)}",
    )


def _listed(differences: dict[str, float]) -> str:
    return ", ".join(f"{name} {each:.1e}" for name, each in differences.items())


def _end(run: Path, engine: str, *flags: str) -> End:
    shutil.rmtree(run, ignore_errors=True)
    arrays = train_to_end(run, *flags, total_steps=STEPS, engine=engine)
    return End(arrays, [row["loss"] for row in read_metrics(run / "metrics.jsonl")])


def _on_one_core(run: Path, engine: str, *flags: str) -> End:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return _end(run, engine, *flags)
    finally:
        os.sched_setaffinity(0, cores)


def _of_weights(left: End, right: End) -> float:
    """Returns the largest difference of two models' weights, relative to the largest one."""
    names = [name for name in left.arrays if name.startswith("model/")]
    largest = max(float(np.abs(left.arrays[name]).max()) for name in names)
    return max(float(np.abs(left.arrays[n] - right.arrays[n]).max()) for n in names) / largest


def _of_losses(left: End, right: End) -> float:
    """Returns the largest relative difference of two losses of the same step."""
    return max(abs(a - b) / abs(a) for a, b in zip(left.losses, right.losses, strict=True))


if __name__ == "__main__":
    part.run("determinism", measure)

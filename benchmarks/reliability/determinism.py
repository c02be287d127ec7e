"""The same training again: `python -m benchmarks.reliability.determinism`.

The same command ends with the same bits. On other numbers of processor cores, and on several
virtual devices instead of one, sums are taken in another order: without dropout the weights
must agree to 1e-5 of the largest one.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.reliability import part
from benchmarks.reliability.part import Row
from benchmarks.reliability.small_runs import train
from trainers.checkpoint_files import Arrays
from trainers.checkpoint_files import digest
from trainers.checkpoint_files import read_checkpoint

STEPS = 40
TOLERANCE = 1e-5
TIMES = 5
_NO_DROPOUT = "--config.model.dropout=0.0"


def measure(workdir: Path) -> Iterator[Row]:
    """Yields two rows an engine."""
    for engine in ("tensorflow", "jax"):
        dropout = "--config.model.dropout=0.2"
        digests = [digest(_end(workdir / "run", engine, dropout)) for _ in range(TIMES)]
        yield Row(
            f"{engine}: {STEPS} steps with dropout, the same command again: weights, optimizer "
            "and sums are the same bit for bit",
            TIMES - 1,
            sum(each == digests[0] for each in digests[1:]),
        )
        reference = _end(workdir / "run", engine, _NO_DROPOUT)
        differences = {
            "one core": _difference(reference, _on_one_core(workdir / "run", engine)),
            **{
                f"{count} devices": _difference(
                    reference,
                    _end(
                        workdir / "run",
                        engine,
                        _NO_DROPOUT,
                        "--strategy=auto",
                        f"--virtual_devices={count}",
                    ),
                )
                for count in (2, 4)
            },
        }
        yield Row(
            f"{engine}: {STEPS} steps without dropout on one core, on 2 and on 4 devices: the "
            f"weights are those of all cores and one device, to {TOLERANCE:.0e} of the largest",
            len(differences),
            sum(each <= TOLERANCE for each in differences.values()),
            ", ".join(f"{name}: {each:.1e}" for name, each in differences.items()),
        )


def _end(run: Path, engine: str, *flags: str) -> Arrays:
    """Trains anew and returns the arrays of the last checkpoint."""
    shutil.rmtree(run, ignore_errors=True)
    done = train(run, *flags, total_steps=STEPS, engine=engine)
    if done.returncode:
        raise SystemExit(done.stderr)
    return read_checkpoint(run / "checkpoints", STEPS)


def _on_one_core(run: Path, engine: str) -> Arrays:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return _end(run, engine, _NO_DROPOUT)
    finally:
        os.sched_setaffinity(0, cores)


def _difference(left: Arrays, right: Arrays) -> float:
    """Returns the largest difference of two models' weights, relative to the largest one."""
    names = [name for name in left if name.startswith("model/")]
    largest = max(float(np.abs(left[name]).max()) for name in names)
    return max(float(np.abs(left[name] - right[name]).max()) for name in names) / largest


if __name__ == "__main__":
    part.run("determinism", measure)

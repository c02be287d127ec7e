"""Seconds until something happens: an import, a first training step, a resumed one.

    python -m benchmarks.startup [--turns=5]

Each arm is a command of its own, from its start to its end, in turns:

- `import tokenlearner_keras` and, beside it, `import keras` alone, which it needs;
- `import tensorflow`, which the trainer needs;
- the trainer from nothing to one step of the digits recipe, its evaluation and checkpoint;
- the same command again, asked for one step more: the resumed step.

Writes `results/startup.csv`; `wall_ratio` is relative to the first arm.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from absl import app
from absl import flags

from benchmarks.timing import environment
from benchmarks.timing import interleaved
from benchmarks.timing import summary
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 5, "Turns that count.", lower_bound=1)

REFERENCE = "import keras"
ROOT = Path(__file__).parents[1]


def main(argv: list[str]) -> None:
    """Measures and writes the CSV."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        arms = _arms(Path(folder))
        times = interleaved(arms, FLAGS.turns)
    rows = []
    for arm in arms:
        # The CPU time is that of this process, which only waits.
        row = {**summary(times[arm], times[REFERENCE]), "cpu_seconds": ""}
        rows.append({"arm": arm, **row, **environment("tensorflow", "keras")})
    print(write_csv("startup", rows))


def _arms(folder: Path) -> dict[str, Callable[[], None]]:
    begun = folder / "begun"
    _train(begun, 1)

    def resume() -> None:
        copy = folder / "resumed"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(begun, copy)
        _train(copy, 2)

    def start() -> None:
        shutil.rmtree(folder / "started", ignore_errors=True)
        _train(folder / "started", 1)

    imports = (REFERENCE, "import tokenlearner_keras", "import tensorflow")
    return {
        **{each: partial(_python, "-c", each) for each in imports},
        "trainer: one step": start,
        "trainer: one step more": resume,
    }


def _train(workdir: Path, steps: int) -> None:
    config = ROOT / "trainers/configs/digits.py"
    _python(
        *("-m", "trainers.train", f"--config={config}", f"--workdir={workdir}"),
        f"--config.total_steps={steps}",
    )


def _python(*arguments: str) -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    # Without them every import would compile its files anew.
    quiet["PYTHONDONTWRITEBYTECODE"] = ""
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        cwd=ROOT,
        env={**os.environ, **quiet},
        capture_output=True,
    )


if __name__ == "__main__":
    app.run(main)

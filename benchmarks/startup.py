"""Seconds until something happens: an import, a first training step, a resumed one.

    python -m benchmarks.startup [--turns=5]

Each is a command, timed from its start to its end; the recipe is digits. Writes
`results/startup.csv`; `wall_ratio` is relative to `import keras`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from absl import app
from absl import flags

from benchmarks.timing import environment
from benchmarks.timing import time_in_turns
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 5, "Turns that count.", lower_bound=1)

REFERENCE = "import keras"
ROOT = Path(__file__).parents[1]


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begun = Path(folder) / "begun"
        _train(begun, 1)
        imports = (REFERENCE, "import tokenlearner_keras", "import tensorflow")
        commands = {
            **{each: partial(_python, "-c", each) for each in imports},
            "trainer: one step": partial(_train, Path(folder) / "started", 1),
            "trainer: one step more": partial(_train, Path(folder) / "resumed", 2, begun),
        }
        times = time_in_turns(commands, FLAGS.turns, REFERENCE)
    rows = []
    for name, row in times.items():
        # The CPU time is that of this process, which only waits.
        row["cpu_seconds"] = ""
        rows.append({"arm": name, **row, **environment("tensorflow", "keras")})
    print(write_csv("startup", rows))


def _train(workdir: Path, steps: int, begun: Path | None = None) -> None:
    """Trains from the beginning, or resumes a copy of a run."""
    shutil.rmtree(workdir, ignore_errors=True)
    if begun is not None:
        shutil.copytree(begun, workdir)
    config = ["--config=trainers/configs/digits.py", f"--config.total_steps={steps}"]
    _python("-m", "trainers.train", *config, f"--workdir={workdir}")


def _python(*arguments: str) -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    # Without them every import would compile its files again.
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

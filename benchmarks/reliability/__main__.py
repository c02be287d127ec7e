"""Runs all parts, one after the other, and writes `results/reliability.csv`.

    python -m benchmarks.reliability [--folder=DIR]

Each part runs in a process of its own, goes on where it was interrupted if it takes long, and
replaces its rows in the CSV. The exit status is 1 if something did not hold. All of them take
some hours on two cores.
"""

import subprocess
import sys

from absl import app
from absl import flags

from benchmarks.reliability import part

FLAGS = flags.FLAGS

#: Modules beside this one, quick ones first.
PARTS = (
    "crash_points",
    "bit_flips",
    "concurrent_runs",
    "damaged_data",
    "hostile_files",
    "configurations",
    "not_finite",
    "signals_and_full_disks",
    "determinism",
    "soak",
    "random_kills",
)


def main(argv: list[str]) -> None:
    """Runs the parts; the status is 1 if one of them fails."""
    del argv
    failed = [name for name in PARTS if _run(name)]
    print(f"failed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


def _run(name: str) -> int:
    command = [sys.executable, "-m", f"benchmarks.reliability.{name}", f"--folder={FLAGS.folder}"]
    print(f"== {name}", flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    part.define_flags()
    app.run(main)

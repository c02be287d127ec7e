"""Runs all parts, one after the other, and writes `results/reliability.csv`.

    python -m benchmarks.reliability [--folder=DIR]

Each part replaces its rows in the CSV. The exit status is 1 if something did not hold. All of them
take some hours on two cores.
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


def main(_: list[str]) -> None:
    failed = []
    for name in PARTS:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.reliability.{name}"]
        if subprocess.run([*command, f"--folder={FLAGS.folder}"], check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    part.define_flags()
    app.run(main)

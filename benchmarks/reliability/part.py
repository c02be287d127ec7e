"""What the parts share: the row of a case, and the command that runs a part alone."""

import dataclasses
import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

from absl import app
from absl import flags

from benchmarks.timing import environment
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

NAME = "reliability"
FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Row:
    """How often a fault was brought about, and how often all held that must hold after it."""

    #: The fault, and what must hold after it, in words for a table.
    case: str
    tries: int
    held: int
    #: What else was measured, in words for a table.
    figures: str = ""


def define_flags() -> None:
    flags.DEFINE_string("folder", f"workdir/{NAME}", "Where the runs go.")


def run(name: str, measure: Callable[[Path], Iterator[Row]]) -> None:
    """Runs a part as a command and replaces its rows in the CSV; status 1 if it did not hold."""

    def main(_: list[str]) -> None:
        workdir = Path(FLAGS.folder).absolute() / name
        workdir.mkdir(parents=True, exist_ok=True)
        rows = []
        for row in measure(workdir):
            print(row, flush=True)
            rows.append(row)
        others = [row for row in read_csv(NAME) if row["part"] != name]
        versions = environment("tensorflow", "jax", "keras")
        mine = [{"part": name, **dataclasses.asdict(row), **versions} for row in rows]
        write_csv(NAME, [*others, *mine])
        sys.exit(any(row.held < row.tries for row in rows))

    define_flags()
    app.run(main)


def all_hold(checks: dict[str, bool], *context: str) -> bool:
    """Tells whether all checks hold; if not, it prints those that do not and the context."""
    wrong = [name for name, held in checks.items() if not held]
    if wrong:
        print(wrong, *context, sep="\n", flush=True)
    return not wrong

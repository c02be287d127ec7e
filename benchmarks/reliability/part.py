"""What the parts share: the row of a case, and the command that runs a part alone."""

import dataclasses
import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from absl import app
from absl import flags

from benchmarks.timing import environment
from benchmarks.timing import kept_rows
from benchmarks.timing import write_csv

NAME = "reliability"
FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of one kind of fault.

    Attributes:
        case: The fault, and what must hold after it, in words for a table.
        tries: How many times it was brought about.
        held: How many times all held that must hold.
        figures: What else was measured, in words for a table; "" for nothing.
    """

    case: str
    tries: int
    held: int
    figures: str = ""


#: From the work directory of a part to its rows, each as soon as it is known.
Measure = Callable[[Path], Iterator[Row]]


def define_flags() -> None:
    """Defines `--folder`."""
    flags.DEFINE_string("folder", f"workdir/{NAME}", "Where the runs go.")


def run(name: str, measure: Measure) -> NoReturn:
    """Runs a part as a command; the exit status is 1 if something did not hold.

    Args:
        name: Of the part; its rows replace those of the CSV that have it.
        measure: Yields the rows.
    """

    def main(argv: list[str]) -> None:
        del argv
        workdir = Path(FLAGS.folder).absolute() / name
        workdir.mkdir(parents=True, exist_ok=True)
        rows = list(_printed(measure(workdir)))
        _write(name, rows)
        sys.exit(any(row.held < row.tries for row in rows))

    define_flags()
    app.run(main)
    raise SystemExit(0)


def _printed(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(row, flush=True)
        yield row


def _write(name: str, rows: list[Row]) -> None:
    others = kept_rows(NAME, lambda row: row["part"] != name)
    versions = environment("tensorflow", "jax", "keras")
    write_csv(
        NAME,
        [*others, *({"part": name, **dataclasses.asdict(row), **versions} for row in rows)],
    )

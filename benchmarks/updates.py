"""The part of a training step that no TokenLearner makes shorter: the optimizer's update.

    python -m benchmarks.updates [--sizes=s,b] [--backends=...] [--turns=5]

AdamW reads and writes every weight once a step, however few tokens there are. Its update alone
is timed beside the whole steps of `benchmarks.models`. Writes `results/updates.csv`, and keeps the
rows of other sizes and backends.
"""

import itertools
from typing import Any

from absl import app

from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison
from benchmarks.models import BATCH_SIZES
from benchmarks.models import FLAGS
from benchmarks.models import IMAGE_SIZE
from benchmarks.models import VARIANTS
from benchmarks.models import WAYS
from benchmarks.models import macs_ratio
from benchmarks.tables.rows import grouped
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

#: What is timed: the variant of the model, and the direction.
_CANDIDATES = {
    "plain": ("plain", "training"),
    "half": ("half", "training"),
    "update": ("half", "update"),
}
_FUNCTION = "benchmarks.implementations.keras_models:ours"


def main(_: list[str]) -> None:
    ways = [way for way in WAYS if way[0] in FLAGS.backends]
    groups: dict[tuple[str, ...], list[Any]]
    groups = {**grouped(read_csv("updates"), "size", "backend")}
    for size in FLAGS.sizes:
        shape = [BATCH_SIZES[size], IMAGE_SIZE, IMAGE_SIZE, 3]
        for backend, mode in ways:
            candidates = []
            for name, (variant, direction) in _CANDIDATES.items():
                arguments = {"name": f"vit_{size}16{VARIANTS[variant]}", "input_shape": shape}
                arguments |= {"direction": direction, "mode": mode}
                candidates.append(Candidate(name, _FUNCTION, arguments, backend))
            with Comparison(FLAGS.turns, FLAGS.threads) as comparison:
                found = comparison.compare(candidates, "plain")
            case = {"size": size, "backend": f"{backend} {mode}", **macs_ratio(size, "ours half")}
            groups[size, case["backend"]] = [case | row for row in found]
            write_csv("updates", list(itertools.chain.from_iterable(groups.values())))


if __name__ == "__main__":
    app.run(main)

"""Attention alone, by the matrix of all weights and in the forms that never hold it.

    python -m benchmarks.attention [--backends=jax,tensorflow,torch] [--turns=9]

In an environment with requirements/benchmarks.txt. Forward and with gradients, float32, six heads
of 64 channels. `wall_ratio` is relative to the matrix. Writes `results/attention.csv`, and keeps
the rows of other backends.
"""

import itertools
from typing import Any

from absl import app
from absl import flags

from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison
from benchmarks.layers import DIRECTIONS
from benchmarks.layers import TOLERANCE
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.DEFINE_list("backends", ["jax", "tensorflow", "torch"], "Backends to measure on.")

#: Batch, heads, tokens and channels of a head.
SHAPES = ((8, 6, 197, 64), (1, 6, 1025, 64), (1, 6, 2305, 64), (1, 6, 4097, 64))
#: Modes, and the form beside the matrix.
WAYS = {
    "jax": (("jit",), "chunks"),
    "tensorflow": (("graph", "xla"), "chunks"),
    "torch": (("eager", "compile"), "scaled_dot_product_attention"),
}
_FUNCTION = "benchmarks.implementations.keras_layers:attention"


def main(_: list[str]) -> None:
    rows: list[dict[str, Any]] = [
        row for row in read_csv("attention") if row["backend"] not in FLAGS.backends
    ]
    for backend in FLAGS.backends:
        modes, other = WAYS[backend]
        for mode, shape, direction in itertools.product(modes, SHAPES, DIRECTIONS):
            candidates = []
            for form in ("matrix", other):
                arguments = {"shape": shape, "form": form, "direction": direction, "mode": mode}
                candidates.append(Candidate(form, _FUNCTION, arguments, backend, compared=True))
            case = {"backend": backend, "mode": mode, "shape": "x".join(map(str, shape))}
            with Comparison(FLAGS.turns, 2, TOLERANCE, memory=True) as comparison:
                found = comparison.compare(candidates, "matrix")
            rows += [{**case, "direction": direction, **row} for row in found]
            rows.sort(key=lambda row: [*WAYS].index(row["backend"]))
            write_csv("attention", rows)


if __name__ == "__main__":
    app.run(main)

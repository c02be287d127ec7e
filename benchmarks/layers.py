"""One TokenLearner or TokenFuser, forward and with gradients, beside every other we found.

    python -m benchmarks.layers [--layers=v1.0,v1.1,fuser] [--turns=9]

In an environment with requirements/benchmarks.txt. Each framework has a process of its own, on as
many cores as `--threads` says; all that claim the same maths are compared before anything is
timed, and turns interleave. Writes `results/layers.csv`, and keeps the rows of layers that are
not measured anew. `wall_ratio` is an arm's time over that of the hand-written JAX function.
"""

import itertools
from typing import Any

from absl import app
from absl import flags

from benchmarks.comparison import Arena
from benchmarks.comparison import Entry
from benchmarks.timing import kept_rows
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.DEFINE_list("layers", ["v1.0", "v1.1", "fuser"], "Layers to measure.")
flags.DEFINE_integer("turns", 9, "Turns that count.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Cores of each process.", lower_bound=1)

SHAPES = ((32, 14, 14, 384), (8, 24, 24, 768))
NUM_TOKENS = (8, 16)
DIRECTIONS = ("forward", "both")
REFERENCE = "handwritten jax"
#: Of an array's largest value; the arms sum in another order.
TOLERANCE = 1e-4
_ARMS = "benchmarks.implementations"
#: Ways to run Keras: backend and mode.
_WAYS = (("jax", "jit"), ("tensorflow", "graph"), ("tensorflow", "xla"))


def main(argv: list[str]) -> None:
    """Measures every case of the chosen layers and writes the CSV."""
    del argv
    rows = kept_rows("layers", lambda row: row["layer"] not in FLAGS.layers)
    with Arena(FLAGS.turns, FLAGS.threads, TOLERANCE) as arena:
        for layer, shape, num_tokens, direction in itertools.product(
            FLAGS.layers, SHAPES, NUM_TOKENS, DIRECTIONS
        ):
            case = {"layer": layer, "shape": shape, "num_tokens": num_tokens}
            case["direction"] = direction
            for row in arena.contest(entries(case), REFERENCE):
                rows.append({**case, "shape": "x".join(map(str, shape)), **row})
            write_csv("layers", rows)


def entries(case: dict[str, Any]) -> list[Entry]:
    """Returns the arms of a case; the first is what the others are compared with."""
    hand = f"{_ARMS}.handwritten_jax"
    found = [Entry(REFERENCE, f"{hand}:handwritten", case, "jax")]
    forms = ("convolution", "matmul") if case["layer"] == "v1.0" else ("matmul",)
    for form in forms:
        arguments = {**case, "form": form}
        found.append(Entry(f"floor, {form}", f"{hand}:floor", arguments, "jax", compared=False))
    found += _keras("ours", "ours", case)
    if case["layer"] == "v1.0":
        found += _keras("keras.io", "keras_io", case)
        # Its LayerNorm has an epsilon of 1e-3.
        found += _keras("k3im", "k3im", case, compared=False)
    if case["layer"] != "fuser":
        found += _torch("tokenlearner-pytorch", "tokenlearner_pytorch", case)
        found += _torch("vit-pytorch PatchMerger", "patch_merger", case)
    return found


def _keras(name: str, function: str, case: dict[str, Any], *, compared: bool = True) -> list[Entry]:
    return [
        Entry(
            f"{name}, {backend} {mode}",
            f"{_ARMS}.keras_layers:{function}",
            {**case, "mode": mode},
            f"keras on {backend}",
            backend,
            compared,
        )
        for backend, mode in _WAYS
    ]


def _torch(name: str, function: str, case: dict[str, Any]) -> list[Entry]:
    return [
        Entry(
            f"{name}, torch {mode}",
            f"{_ARMS}.torch_layers:{function}",
            {**case, "mode": mode},
            "torch",
            compared=False,
        )
        for mode in ("eager", "compile")
    ]


if __name__ == "__main__":
    app.run(main)

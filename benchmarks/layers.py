"""One TokenLearner or TokenFuser, forward and with gradients, beside every other we found.

    python -m benchmarks.layers [--layers=v1.0,v1.1,mha,fuser] [--turns=9] [--noothers]

In an environment with requirements/benchmarks.txt. Writes `results/layers.csv`, and keeps the
rows of other layers and threads; `wall_ratio` is relative to the hand-written JAX function. With
`--noothers` only our layers on JAX and the hand-written functions are measured, without further
packages.
"""

import itertools
from typing import Any

from absl import app
from absl import flags

from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.DEFINE_list("layers", ["v1.0", "v1.1", "mha", "fuser"], "Layers to measure.")
flags.DEFINE_integer("turns", 9, "Turns that count.", lower_bound=1)
flags.DEFINE_list("threads", ["2", "1"], "Cores of each process; each number is measured.")
flags.DEFINE_bool("others", True, "Also measure floors, other backends and other packages.")

SHAPES = (
    (1, 24, 24, 768),
    (4, 32, 32, 1024),
    (32, 14, 14, 384),
    (64, 14, 14, 768),
    (2, 8, 14, 14, 768),
)
#: Where other candidates also take part, with the largest number of threads.
SHAPES_OF_OTHERS = ((4, 32, 32, 1024), (32, 14, 14, 384))
NUM_TOKENS = (8, 16)
DIRECTIONS = ("forward", "both")
REFERENCE = "handwritten jax"
#: The same program once more: what its ratio differs from 1 by is noise.
AGAIN = "again by hand"
#: Of an array's largest value; the implementations sum in another order.
TOLERANCE = 1e-4
_JAX = "benchmarks.implementations.handwritten_jax"
_KERAS = "benchmarks.implementations.keras_layers"
_TORCH = "benchmarks.implementations.torch_modules"
#: Backends and modes.
Ways = tuple[tuple[str, str], ...]
_KERAS_WAYS: Ways = (("jax", "jit"), ("tensorflow", "graph"), ("tensorflow", "xla"))
_TORCH_WAYS: Ways = (("torch", "eager"), ("torch", "compile"))


def main(_: list[str]) -> None:
    rows: list[dict[str, Any]] = [
        row
        for row in read_csv("layers")
        if row["layer"] not in FLAGS.layers or row["threads"] not in FLAGS.threads
    ]
    numbers = [int(each) for each in FLAGS.threads]
    for threads in numbers:
        with Comparison(FLAGS.turns, threads, TOLERANCE, memory=True) as comparison:
            for layer, shape, num_tokens, direction in itertools.product(
                FLAGS.layers, SHAPES, NUM_TOKENS, DIRECTIONS
            ):
                case = {"layer": layer, "shape": shape, "num_tokens": num_tokens}
                case["direction"] = direction
                others = FLAGS.others and shape in SHAPES_OF_OTHERS and threads == max(numbers)
                candidates = _candidates(case) if others else _on_jax(case)
                for row in comparison.compare(candidates, REFERENCE):
                    rows.append({**case, "shape": "x".join(map(str, shape)), **row})
                write_csv("layers", rows)


def _on_jax(case: dict[str, Any]) -> list[Candidate]:
    """Returns our layer, and before it what it is compared with: the first, timed twice."""
    function = f"{_JAX}:handwritten"
    found = [Candidate(REFERENCE, function, case, "jax", compared=True)]
    found.append(Candidate(AGAIN, function, case, "jax"))
    return found + _in_ways(_KERAS_WAYS[:1], "ours", f"{_KERAS}:ours", case, compared=True)


def _candidates(case: dict[str, Any]) -> list[Candidate]:
    found = _on_jax(case)
    forms = ("convolution", "matmul") if case["layer"] == "v1.0" else ("matmul",)
    for form in forms:
        found.append(Candidate(f"floor, {form}", f"{_JAX}:floor", {**case, "form": form}, "jax"))
    found += _in_ways(_KERAS_WAYS[1:], "ours", f"{_KERAS}:ours", case, compared=True)
    if case["layer"] == "v1.0":
        found += _in_ways(_KERAS_WAYS, "keras.io", f"{_KERAS}:keras_io", case, compared=True)
        # Its LayerNorm has an epsilon of 1e-3.
        found += _in_ways(_KERAS_WAYS, "k3im", f"{_KERAS}:k3im", case)
    if case["layer"] != "fuser":
        learner, merger = f"{_TORCH}:tokenlearner_pytorch", f"{_TORCH}:patch_merger"
        found += _in_ways(_TORCH_WAYS, "tokenlearner-pytorch", learner, case)
        found += _in_ways(_TORCH_WAYS, "vit-pytorch PatchMerger", merger, case)
    return found


def _in_ways(
    ways: Ways, name: str, function: str, case: dict[str, Any], compared: bool = False
) -> list[Candidate]:
    found = []
    for backend, mode in ways:
        title, arguments = f"{name}, {backend} {mode}", {**case, "mode": mode}
        found.append(Candidate(title, function, arguments, backend, compared))
    return found


if __name__ == "__main__":
    app.run(main)

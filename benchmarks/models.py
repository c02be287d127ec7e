"""ViT-S/16 and ViT-B/16 with and without TokenLearner, beside the ViTs of other packages.

    python -m benchmarks.models [--sizes=s,b] [--directions=...] [--backends=...] [--turns=5]

In an environment with requirements/benchmarks.txt. Inference and a training step with AdamW,
224 x 224, in float32, compiled; on PyTorch also eager. `wall_ratio` and `macs_ratio` are relative
to the plain ViT of the same family: ours, and k3im's own. Writes `results/models.csv`, and keeps
the rows of families that it does not measure.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
from absl import app
from absl import flags

import tokenlearner_keras as tk
from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison
from benchmarks.tables.rows import grouped
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["s", "b"], "Sizes of the models to measure.")
flags.DEFINE_list("directions", ["inference", "training"], "Directions to measure.")
flags.DEFINE_list("backends", ["jax", "tensorflow", "torch"], "Backends to measure on.")
flags.DEFINE_integer("turns", 5, "Turns that count.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Cores of each process.", lower_bound=1)

IMAGE_SIZE = 224
BATCH_SIZES = {"s": 8, "b": 4}
#: TokenLearner at half and at three quarters of the twelve blocks.
VARIANTS = {"plain": "", "half": "_tl8at6", "three quarters": "_tl8at9"}
#: What token merging takes away after each block, as in the paper for ViT-S.
MERGED = 13
WAYS = (("jax", "jit"), ("tensorflow", "xla"), ("torch", "eager"), ("torch", "compile"))
_TORCH = "benchmarks.implementations.torch_modules"


def main(_: list[str]) -> None:
    families: dict[tuple[str, ...], list[Any]]
    families = {**grouped(read_csv("models"), "size", "direction", "family")}
    for size, direction in itertools.product(FLAGS.sizes, FLAGS.directions):
        case = {"size": size, "direction": direction, "batch_size": BATCH_SIZES[size]}
        for family, candidates in _families(size, direction):
            # A process each time: models of several families would fill the memory.
            with Comparison(FLAGS.turns, FLAGS.threads) as comparison:
                found = comparison.compare(candidates, candidates[0].name)
            families[size, direction, family] = [
                {**case, "family": family, **row, **macs_ratio(size, row["arm"])} for row in found
            ]
            write_csv("models", list(itertools.chain.from_iterable(families.values())))


def _families(size: str, direction: str) -> Iterator[tuple[str, list[Candidate]]]:
    """Yields what is timed together: its name and its candidates, the plain one first."""
    input_shape = (BATCH_SIZES[size], IMAGE_SIZE, IMAGE_SIZE, 3)
    common = {"input_shape": input_shape, "direction": direction}
    for backend, mode in WAYS:
        if backend not in FLAGS.backends:
            continue
        more = {**common, "mode": mode}
        sized = {**more, "size": size}
        candidates = [
            _keras(f"ours {variant}", "ours", backend, {**more, "name": f"vit_{size}16{suffix}"})
            for variant, suffix in VARIANTS.items()
        ]
        merging = {**more, "name": f"vit_{size}16", "count": MERGED}
        candidates.append(_keras("token merging", "token_merging", backend, merging))
        candidates.append(_keras("keras-hub plain", "keras_hub", backend, sized))
        if backend == "torch":
            vit, merger = {**sized, "tokens": 0}, {**sized, "tokens": 8}
            candidates += [
                Candidate("vit-pytorch plain", f"{_TORCH}:vit_pytorch", vit),
                Candidate("vit-pytorch PatchMerger half", f"{_TORCH}:vit_pytorch", merger),
                Candidate("timm plain", f"{_TORCH}:timm", sized),
            ]
        yield f"{backend} {mode}", candidates
        if backend != "torch":
            k3im = [
                _keras("k3im plain", "k3im", backend, {**sized, "tokens": 0}),
                _keras("k3im half", "k3im", backend, {**sized, "tokens": 8}),
            ]
            yield f"k3im, {backend} {mode}", k3im


def _keras(name: str, function: str, backend: str, arguments: dict[str, Any]) -> Candidate:
    path = f"benchmarks.implementations.keras_models:{function}"
    return Candidate(name, path, arguments, backend)


def macs_ratio(size: str, arm: str) -> dict[str, Any]:
    """Returns the MACs of our models over the plain one's; blank for other packages."""
    package, _, variant = arm.partition(" ")
    if package != "ours":
        return {"macs_ratio": ""}
    macs = [
        tk.count_macs(tk.create_model(f"vit_{size}16{suffix}", image_size=IMAGE_SIZE))
        for suffix in ("", VARIANTS[variant])
    ]
    keras.backend.clear_session()
    return {"macs_ratio": round(macs[1] / macs[0], 4)}


if __name__ == "__main__":
    app.run(main)

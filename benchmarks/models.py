"""ViT-S/16 and ViT-B/16 with and without TokenLearner, beside the ViTs of other packages.

    python -m benchmarks.models [--sizes=s,b] [--turns=5]

In an environment with requirements/benchmarks.txt. Inference and a training step with AdamW,
224 x 224, in float32, compiled. `wall_ratio` and `macs_ratio` are relative to the same package's
plain ViT on the same backend. Writes `results/models.csv`, and keeps the rows of other sizes.
"""

from collections.abc import Iterator
from typing import Any

import keras
from absl import app
from absl import flags

import tokenlearner_keras as tk
from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["s", "b"], "Sizes of the models to measure.")
flags.DEFINE_integer("turns", 5, "Turns that count.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Cores of each process.", lower_bound=1)

IMAGE_SIZE = 224
BATCH_SIZES = {"s": 8, "b": 4}
#: TokenLearner at half and at three quarters of the twelve blocks.
VARIANTS = {"plain": "", "half": "_tl8at6", "three quarters": "_tl8at9"}
#: What token merging takes away after each block, as in the paper for ViT-S.
MERGED = 13
WAYS = (("jax", "jit"), ("tensorflow", "xla"))
_TORCH = "benchmarks.implementations.torch_modules:vit"


def main(_: list[str]) -> None:
    rows: list[dict[str, Any]] = [
        row for row in read_csv("models") if row["size"] not in FLAGS.sizes
    ]
    for size in FLAGS.sizes:
        for direction in ("inference", "training"):
            case = {"size": size, "direction": direction, "batch_size": BATCH_SIZES[size]}
            for family, candidates in _families(size, direction):
                # A process each time: models of several families would fill the memory.
                with Comparison(FLAGS.turns, FLAGS.threads) as comparison:
                    found = comparison.compare(candidates, candidates[0].name)
                for row in found:
                    rows.append({**case, "family": family, **row, **macs_ratio(size, row["arm"])})
                write_csv("models", rows)


def _families(size: str, direction: str) -> Iterator[tuple[str, list[Candidate]]]:
    """Yields what is timed together: its name and its candidates, the plain one first."""
    input_shape = (BATCH_SIZES[size], IMAGE_SIZE, IMAGE_SIZE, 3)
    common = {"input_shape": input_shape, "direction": direction}
    for backend, mode in WAYS:
        more = {**common, "mode": mode}
        candidates = [
            _keras(f"ours {variant}", "ours", backend, {**more, "name": f"vit_{size}16{suffix}"})
            for variant, suffix in VARIANTS.items()
        ]
        merging = {**more, "name": f"vit_{size}16", "count": MERGED}
        candidates.append(_keras("token merging", "token_merging", backend, merging))
        candidates.append(_keras("keras-hub plain", "keras_hub", backend, {**more, "size": size}))
        yield f"{backend} {mode}", candidates
        yield (
            f"k3im, {backend} {mode}",
            [
                _keras("k3im plain", "k3im", backend, {**more, "size": size, "tokens": 0}),
                _keras("k3im half", "k3im", backend, {**more, "size": size, "tokens": 8}),
            ],
        )
    for mode in ("eager", "compile"):
        vit = {**common, "mode": mode, "size": size}
        yield (
            f"vit-pytorch, torch {mode}",
            [
                Candidate("vit-pytorch plain", _TORCH, {**vit, "tokens": 0}),
                Candidate("vit-pytorch PatchMerger half", _TORCH, {**vit, "tokens": 8}),
            ],
        )


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

"""ViT-S/16 and ViT-B/16 with and without TokenLearner, beside the ViTs of other packages.

    python -m benchmarks.models [--sizes=s,b] [--turns=5]

In an environment with requirements/benchmarks.txt. Inference and a training step with AdamW,
224 x 224, in float32, compiled. `wall_ratio` is an arm's time over that of the same package's
plain ViT on the same backend; for our models `macs_ratio` stands beside it. Turns of all
packages interleave. Writes `results/models.csv`, and keeps the rows of sizes that are not
measured anew.
"""

from collections.abc import Iterator
from typing import Any

import keras
from absl import app
from absl import flags

import tokenlearner_keras as tk
from benchmarks.comparison import Arena
from benchmarks.comparison import Entry
from benchmarks.timing import kept_rows
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
TOLERANCE = 1e-3
_ARMS = "benchmarks.implementations"
WAYS = (("jax", "jit"), ("tensorflow", "xla"))


def main(argv: list[str]) -> None:
    """Measures and writes the CSV."""
    del argv
    rows = kept_rows("models", lambda row: row["size"] not in FLAGS.sizes)
    for size in FLAGS.sizes:
        for direction in ("inference", "training"):
            case = {"size": size, "direction": direction, "batch_size": BATCH_SIZES[size]}
            for family, entries in families(size, direction):
                # A process each time: models of several families would fill the memory.
                with Arena(FLAGS.turns, FLAGS.threads, TOLERANCE, memory=False) as arena:
                    found = arena.contest(entries, entries[0].name)
                for row in found:
                    rows.append({**case, "family": family, **row, **macs_ratio(size, row["arm"])})
                write_csv("models", rows)


def families(size: str, direction: str) -> Iterator[tuple[str, list[Entry]]]:
    """Yields what is timed together: its name and its arms, the plain one first."""
    batch, shape = BATCH_SIZES[size], (IMAGE_SIZE, IMAGE_SIZE, 3)
    common = {"input_shape": (batch, *shape), "direction": direction}
    for backend, mode in WAYS:
        more = {**common, "mode": mode}
        entries = [
            _keras(f"ours {variant}", "ours", backend, {**more, "name": f"vit_{size}16{suffix}"})
            for variant, suffix in VARIANTS.items()
        ]
        merging = {**more, "name": f"vit_{size}16", "count": MERGED}
        entries.append(_keras("token merging", "token_merging", backend, merging))
        entries.append(_keras("keras-hub plain", "keras_hub", backend, {**more, "size": size}))
        yield f"{backend} {mode}", entries
        for_k3im = {**more, "size": size}
        yield (
            f"k3im, {backend} {mode}",
            [
                _keras("k3im plain", "k3im", backend, {**for_k3im, "tokens": 0}),
                _keras("k3im half", "k3im", backend, {**for_k3im, "tokens": 8}),
            ],
        )
    for mode in ("eager", "compile"):
        vit = {**common, "mode": mode, "size": size}
        yield (
            f"vit-pytorch, torch {mode}",
            [
                _torch("vit-pytorch plain", {**vit, "tokens": 0}),
                _torch("vit-pytorch PatchMerger half", {**vit, "tokens": 8}),
            ],
        )


def _keras(name: str, function: str, backend: str, arguments: dict[str, Any]) -> Entry:
    path = f"{_ARMS}.keras_models:{function}"
    return Entry(name, path, arguments, backend, backend, compared=False)


def _torch(name: str, arguments: dict[str, Any]) -> Entry:
    return Entry(name, f"{_ARMS}.torch_models:vit", arguments, "torch", compared=False)


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

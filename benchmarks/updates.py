"""The part of a training step that no TokenLearner makes shorter: the optimizer's update.

    python -m benchmarks.updates [--sizes=s,b] [--turns=5]

AdamW reads and writes every weight once a step, however few tokens there are. Its update alone
is timed beside the whole step of the plain ViT and of the one with a TokenLearner at half, in
turns, as in `benchmarks.models`. Writes `results/updates.csv`.
"""

from typing import Any

from absl import app
from absl import flags

from benchmarks.comparison import Arena
from benchmarks.comparison import Entry
from benchmarks.models import BATCH_SIZES
from benchmarks.models import IMAGE_SIZE
from benchmarks.models import TOLERANCE
from benchmarks.models import VARIANTS
from benchmarks.models import WAYS
from benchmarks.models import macs_ratio
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
_FUNCTION = "benchmarks.implementations.keras_models:ours"


def main(argv: list[str]) -> None:
    """Measures and writes the CSV."""
    del argv
    rows: list[dict[str, Any]] = []
    for size in FLAGS.sizes:
        for backend, mode in WAYS:
            entries = _entries(size, backend, mode)
            with Arena(FLAGS.turns, FLAGS.threads, TOLERANCE, memory=False) as arena:
                found = arena.contest(entries, entries[0].name)
            case = {"size": size, "backend": f"{backend} {mode}", **macs_ratio(size, "ours half")}
            rows += [case | row for row in found]
            write_csv("updates", rows)


def _entries(size: str, backend: str, mode: str) -> list[Entry]:
    shape = [BATCH_SIZES[size], IMAGE_SIZE, IMAGE_SIZE, 3]
    arms = {
        "plain": ("plain", "training"),
        "half": ("half", "training"),
        "update": ("half", "update"),
    }
    return [
        Entry(
            name,
            _FUNCTION,
            {
                "name": f"vit_{size}16{VARIANTS[variant]}",
                "input_shape": shape,
                "direction": direction,
                "mode": mode,
            },
            backend,
            backend,
            compared=False,
        )
        for name, (variant, direction) in arms.items()
    ]


if __name__ == "__main__":
    app.run(main)

"""Accuracy against cost: other ways to make the image demo's plain ViT cheaper, over seeds.

    python -m benchmarks.demo_family --workdir=DIR [--seeds=0,1,2] [--models=NAME,...]

Trains trainers/configs/demo.py with its TokenLearner before another block, with the patches
averaged to a coarser grid or merged by a PatchMerger in its place, and as a plain ViT of half the
blocks; writes `results/demo_family.csv`. `benchmarks.demo_plot` draws it beside
`results/demo_accuracy.csv`.
Runs that are already in the work directory are only read, rows of other models are kept. About
an hour and a quarter on two cores.
"""

from absl import app
from absl import flags

from benchmarks.demo_accuracy import FLAGS
from benchmarks.demo_accuracy import results
from benchmarks.timing import kept_rows
from benchmarks.timing import write_csv

#: All blocks of the demo's ViT see 64 patches; pooling leaves a grid of 3x3 of them.
MODELS = {
    "vit_ti8_d4_tl8at2": "TokenLearner",
    "vit_ti8_d4_tl8at3": "TokenLearner",
    "vit_ti8_d4_pool3at1": "average pooling",
    "vit_ti8_d4_pm8at1": "PatchMerger",
    "vit_ti8_d2": "plain ViT",
}

_MODELS = flags.DEFINE_list("models", list(MODELS), "Models to train.")


def main(argv: list[str]) -> None:
    """Trains every model with every seed and writes the CSV."""
    del argv
    chosen = {name: MODELS[name] for name in _MODELS.value}
    rows = kept_rows("demo_family", lambda row: row["name"] not in chosen)
    rows += results(chosen, FLAGS.seeds, FLAGS.workdir)
    print(write_csv("demo_family", rows))


if __name__ == "__main__":
    app.run(main)

"""Accuracy against cost: other ways to make the image demo's plain ViT cheaper, over seeds.

    python -m benchmarks.demo_family --workdir=DIR [--seeds=0,1,2]

Trains trainers/configs/demo.py with its TokenLearner before another block, with the patches
averaged to a coarser grid in its place, and as a plain ViT of half the blocks; writes
`results/demo_family.csv`. `benchmarks.demo_plot` draws it beside `results/demo_accuracy.csv`.
Runs that are already in the work directory are only read. About an hour on two cores.
"""

from absl import app

from benchmarks.demo_accuracy import FLAGS
from benchmarks.demo_accuracy import results
from benchmarks.measuring import write_csv

#: All blocks of the demo's ViT see 64 patches; pooling leaves a grid of 3x3 of them.
MODELS = {
    "vit_ti8_d4_tl8at2": "TokenLearner",
    "vit_ti8_d4_tl8at3": "TokenLearner",
    "vit_ti8_d4_pool3at1": "average pooling",
    "vit_ti8_d2": "plain ViT",
}


def main(argv: list[str]) -> None:
    """Trains every model with every seed and writes the CSV."""
    del argv
    print(write_csv("demo_family", results(MODELS, FLAGS.seeds, FLAGS.workdir)))


if __name__ == "__main__":
    app.run(main)

"""Accuracy against cost: other ways to make the image demo's plain ViT cheaper, over seeds.

    python -m benchmarks.demo_family --workdir=DIR [--seeds=0,1,2] [--models=NAME,...]

Writes `results/demo_family.csv` and keeps the rows of other models; `benchmarks.demo_plot` draws
them. About an hour and a quarter on two cores; finished runs in the work directory are only read.
"""

from typing import Any

from absl import app
from absl import flags

from benchmarks.demo_accuracy import FLAGS
from benchmarks.demo_accuracy import results
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

#: All blocks of the demo's ViT see 64 patches; pooling leaves a grid of 3x3 of them.
MODELS = {
    "vit_ti8_d4_tl8at2": "TokenLearner",
    "vit_ti8_d4_tl8at3": "TokenLearner",
    "vit_ti8_d4_pool3at1": "average pooling",
    "vit_ti8_d4_tl8at1_pm": "PatchMerger",
    "vit_ti8_d2": "plain ViT",
}
#: What the rows of earlier runs call a model: the same one, before the library had its name.
EARLIER_NAMES = {"vit_ti8_d4_pm8at1": "vit_ti8_d4_tl8at1_pm"}

_MODELS = flags.DEFINE_list("models", list(MODELS), "Models to train.")


def main(_: list[str]) -> None:
    chosen = {name: MODELS[name] for name in _MODELS.value}
    rows: list[dict[str, Any]] = [
        row
        for row in read_csv("demo_family")
        if EARLIER_NAMES.get(row["name"], row["name"]) not in chosen
    ]
    rows += results(chosen, FLAGS.seeds, FLAGS.workdir)
    print(write_csv("demo_family", rows))


if __name__ == "__main__":
    app.run(main)

"""What the video demo learns, with and without TokenLearner, over seeds.

    python -m benchmarks.demo_video_accuracy --workdir=DIR [--seeds=0,1,2]

Trains trainers/configs/demo_video.py and demo_video_multilabel.py, their plain ViT twins, and
the TokenLearner model once more on clips that are one frame repeated; writes
`results/demo_video_accuracy.csv`. Every model is also tested on clips whose frames are
repeated or shuffled. Runs that are already in the work directory are only read, so an
interrupted benchmark goes on where it stopped. About an hour on two cores.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import app
from absl import flags

from benchmarks.timing import environment
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "workdir/benchmarks", "Where the runs go.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to train with.")

CONFIGS = ("demo_video", "demo_video_multilabel")
NAME = "vivit_ti8x4_d3_tl4at1"
#: What each model is called, and what differs from the configuration.
VARIANTS = {
    "TokenLearner": {"model.name": NAME},
    "plain ViT": {"model.name": "vivit_ti8x4_d3"},
    "TokenLearner, trained on one frame": {"model.name": NAME, "video.frame_order": "repeated"},
}


def main(argv: list[str]) -> None:
    """Trains every model with every seed and writes the CSV."""
    del argv
    rows = []
    for config in CONFIGS:
        for seed in FLAGS.seeds:
            for label, overrides in VARIANTS.items():
                folder = "_".join((config, *overrides.values(), f"seed{seed}"))
                workdir = Path(FLAGS.workdir) / folder
                _train(config, seed, overrides, workdir)
                rows.append(_row(label, int(seed), workdir))
                print(rows[-1], flush=True)
    print(write_csv("demo_video_accuracy", rows))


def _train(config: str, seed: str, overrides: dict[str, str], workdir: Path) -> None:
    """Trains; a finished run ends at once, one that was stopped goes on."""
    command = [sys.executable, "-m", "trainers.train", f"--workdir={workdir}"]
    command += [f"--config=trainers/configs/{config}.py", f"--config.seed={seed}"]
    command += [f"--config.{key}={value}" for key, value in overrides.items()]
    subprocess.run(command, check=True)


def _row(label: str, seed: int, workdir: Path) -> dict[str, Any]:
    import tokenlearner_keras as tk
    from trainers.data.sources import make_source
    from trainers.demo_video import evaluate_order
    from trainers.demo_video import finished_run
    from trainers.demo_video import headline
    from trainers.utils.reporting import read_metrics

    last = {row["split"]: row for row in read_metrics(workdir / "metrics.jsonl")}
    config, model, preprocessing = finished_run(str(workdir))
    test = make_source(config.data.source, "test", None)
    orders = {
        order: headline(evaluate_order(config, model, preprocessing, test, order))[1]
        for order in ("natural", "repeated", "shuffled")
    }
    return {
        "data": config.data.source,
        "model": label,
        "name": config.model.name,
        "seed": seed,
        "metric": headline(last["test"])[0],
        "test": round(headline(last["test"])[1], 4),
        "test_examples": last["test"]["num_examples"],
        "validation": round(headline(last["validation"])[1], 4),
        **{f"test_{order}": round(value, 4) for order, value in orders.items()},
        "macs": tk.count_macs(model),
        "parameters": model.count_params(),
        "steps": last["test"]["step"],
        **environment("tensorflow", "keras"),
    }


if __name__ == "__main__":
    app.run(main)

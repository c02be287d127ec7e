"""What the video demo learns, with and without TokenLearner, over seeds.

    python -m benchmarks.demo_video_accuracy --workdir=DIR [--seeds=0,1,2]

Writes `results/demo_video_accuracy.csv`; every model is also tested on clips whose frames are
repeated or shuffled. About an hour on two cores; an interrupted benchmark resumes, and finished
runs in the work directory are only read.
"""

from pathlib import Path
from typing import Any

from absl import app
from absl import flags

from benchmarks import demo_accuracy
from benchmarks.timing import environment
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(demo_accuracy)

CONFIGS = ("demo_video", "demo_video_multilabel")
NAME = "vivit_ti8x4_d3_tl4at1"
#: What each model is called, and what differs from the configuration.
VARIANTS = {
    "TokenLearner": {"model.name": NAME},
    "plain ViT": {"model.name": "vivit_ti8x4_d3"},
    "TokenLearner, trained on one frame": {"model.name": NAME, "video.frame_order": "repeated"},
}


def main(_: list[str]) -> None:
    rows = []
    for config in CONFIGS:
        for seed in FLAGS.seeds:
            for label, overrides in VARIANTS.items():
                folder = "_".join((config, *overrides.values(), f"seed{seed}"))
                workdir = Path(FLAGS.workdir) / folder
                demo_accuracy.train(config, seed, overrides, workdir)
                rows.append(_row(label, int(seed), workdir))
                print(rows[-1], flush=True)
    print(write_csv("demo_video_accuracy", rows))


def _row(label: str, seed: int, workdir: Path) -> dict[str, Any]:
    import tokenlearner_keras as tk
    from trainers.data.sources import make_source
    from trainers.demo import finished_run
    from trainers.demo import headline
    from trainers.demo_video import SOURCES
    from trainers.demo_video import evaluate_order
    from trainers.utils.reporting import read_metrics

    last = {row["split"]: row for row in read_metrics(workdir / "metrics.jsonl")}
    run = finished_run(str(workdir), SOURCES)
    config, model = run.config, run.model
    test = make_source(config.data.source, "test", None)
    orders = {
        order: headline(evaluate_order(run, test, order))[1]
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

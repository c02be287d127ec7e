"""Accuracy of the image demo with and without TokenLearner, over seeds.

    python -m benchmarks.demo_accuracy --workdir=DIR [--seeds=0,1,2]

Writes `results/demo_accuracy.csv`. About forty minutes on two cores; an interrupted benchmark
resumes, and finished runs in the work directory are only read.
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

MODELS = {"vit_ti8_d4_tl8at1": "TokenLearner", "vit_ti8_d4": "plain ViT"}


def main(_: list[str]) -> None:
    print(write_csv("demo_accuracy", results(MODELS, FLAGS.seeds, FLAGS.workdir)))


def results(models: dict[str, str], seeds: list[str], folder: str) -> list[dict[str, Any]]:
    """Returns a row for each model (name: label) and seed; trains what is not trained yet."""
    rows = []
    for seed in seeds:
        for name, label in models.items():
            workdir = Path(folder) / f"{name}_seed{seed}"
            train("demo", seed, {"model.name": name}, workdir)
            rows.append(_row(label, name, int(seed), workdir))
            print(rows[-1], flush=True)
    return rows


def train(config: str, seed: str, overrides: dict[str, str], workdir: Path) -> None:
    """Trains a recipe of trainers/configs, or resumes; a finished run ends at once."""
    command = [sys.executable, "-m", "trainers.train", f"--workdir={workdir}"]
    command += [f"--config=trainers/configs/{config}.py", f"--config.seed={seed}"]
    command += [f"--config.{key}={value}" for key, value in overrides.items()]
    subprocess.run(command, check=True)


def _row(label: str, name: str, seed: int, workdir: Path) -> dict[str, Any]:
    import keras

    import tokenlearner_keras as tk
    from trainers.utils.reporting import read_metrics

    last = {row["split"]: row for row in read_metrics(workdir / "metrics.jsonl")}
    model = keras.saving.load_model(workdir / "model.keras", compile=False)
    return {
        "model": label,
        "name": name,
        "seed": seed,
        "test_accuracy": round(last["test"]["accuracy"], 4),
        "test_examples": last["test"]["num_examples"],
        "validation_accuracy": round(last["validation"]["accuracy"], 4),
        "mass_on_object": _mass_on_object(model),
        "macs": tk.count_macs(model),
        "parameters": model.count_params(),
        "steps": last["test"]["step"],
        **environment("tensorflow", "keras"),
    }


def _mass_on_object(model: Any) -> float | str:
    """Returns the mean share of the maps' mass inside the object; empty without maps."""
    import numpy as np

    import tokenlearner_keras as tk
    from tokenlearner_keras.introspection import token_learners
    from trainers.data.freedoom.dataset import load_freedoom_objects
    from trainers.data.preprocessing.normalization import normalize
    from trainers.demo import mass_inside

    if not token_learners(model):
        return ""
    test = load_freedoom_objects("test")
    maps = tk.attention_maps(model, np.asarray(normalize(test.images, "unit")))
    return round(float(mass_inside(next(iter(maps.values())), test.masks).mean()), 3)


if __name__ == "__main__":
    app.run(main)

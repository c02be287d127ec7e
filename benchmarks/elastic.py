"""Accuracy against the number of tokens: one elastic model beside models trained for one number.

    python -m benchmarks.elastic --workdir=DIR [--seeds=0] [--steps=2500]

The image demo with up to 16 tokens: a model trained with `elastic_tokens=(4, 8, 16)`, and one for
each of these numbers, all with the same number of steps. Every model is tested with every number
that it has, by `tk.set_num_tokens`. Writes `results/elastic.csv`. At most 25 CPU minutes a seed; an
interrupted benchmark resumes, and finished runs in the work directory are only read.
"""

from pathlib import Path
from typing import Any

from absl import app
from absl import flags

from benchmarks import demo_accuracy
from benchmarks.demo_accuracy import FLAGS
from benchmarks.timing import environment
from benchmarks.timing import write_csv

flags.adopt_module_key_flags(demo_accuracy)
FLAGS.set_default("seeds", ["0"])
flags.DEFINE_integer("steps", 2500, "Steps of each training.", lower_bound=1)

#: Numbers that the elastic model is trained with; the others have one each.
TRAINED = (4, 8, 16)
#: Numbers to test with, also such as no model was trained with.
TESTED = (1, 2, 4, 6, 8, 12, 16)


def main(_: list[str]) -> None:
    rows = [row for seed in FLAGS.seeds for row in results(seed, FLAGS.steps, Path(FLAGS.workdir))]
    print(write_csv("elastic", rows))


def results(seed: str, steps: int, folder: Path) -> list[dict[str, Any]]:
    """Returns a row for each model and number of tokens; trains what is not trained yet."""
    rows = []
    for trained in (TRAINED, *((number,) for number in TRAINED)):
        name = f"vit_ti8_d4_tl{trained[-1]}at1"
        elastic = len(trained) > 1
        workdir = folder / f"{name}{'_elastic' if elastic else ''}_{steps}_steps_seed{seed}"
        overrides = {"model.name": name, "total_steps": str(steps)}
        if elastic:
            overrides["model.elastic_tokens"] = str(trained)
        demo_accuracy.train("demo", seed, overrides, workdir)
        shared = {
            "trained_with": " ".join(map(str, trained)),
            "name": name,
            "seed": int(seed),
            "steps": steps,
        }
        tested = tested_model(workdir / "model.keras", trained[-1])
        rows += [{**shared, **row, **environment("tensorflow", "keras")} for row in tested]
        print(*rows[-len(tested) :], sep="\n", flush=True)
    return rows


def tested_model(path: Path, most: int) -> list[dict[str, Any]]:
    """Returns a model's cost and its accuracy on the test images with each number of tokens."""
    import keras
    import numpy as np

    import tokenlearner_keras as tk
    from trainers.data.freedoom.dataset import load_freedoom_objects
    from trainers.data.preprocessing.normalization import normalize

    model, test = keras.saving.load_model(path, compile=False), load_freedoom_objects("test")
    inputs = np.asarray(normalize(test.images, "unit"))
    rows = []
    for num_tokens in TESTED:
        if num_tokens <= most:
            small = tk.set_num_tokens(model, num_tokens)
            classes = small.predict(inputs, batch_size=100, verbose=0).argmax(axis=-1)
            rows.append(
                {
                    "num_tokens": num_tokens,
                    "macs": tk.count_macs(small),
                    "test_accuracy": round(float((classes == test.labels).mean()), 4),
                    "test_examples": len(test.labels),
                }
            )
    return rows


if __name__ == "__main__":
    app.run(main)

"""What quantised models weigh, how far their outputs move, and the accuracy of a trained one.

    python -m benchmarks.quantization [--models=vit_ti16,vit_ti16_tl8at6] [--trained=DIR]

Every figure is that of a model saved as `.keras` and loaded again. The models have random weights;
`--trained`, a finished training such as that of `make demo`, adds its model and the accuracy on its
final split. Writes `results/quantization.csv`: `size_ratio` is relative to float32,
`largest_difference` to the largest output of the float model.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app
from absl import flags

import tokenlearner_keras as tk
from benchmarks.timing import environment
from benchmarks.timing import write_csv
from trainers.checkpointing.workdir import read_class_names
from trainers.checkpointing.workdir import read_configuration
from trainers.engines.flags import make_local_engine
from trainers.evaluation.sets import parse_sets
from trainers.experiment import make_evaluator
from trainers.experiment import make_preprocessing

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "models",
    ["vit_ti16", "vit_ti16_tl8at6", "vit_ti16_tl8at6_v10"],
    "Names of models with random weights.",
)
flags.DEFINE_string("trained", None, "A finished training, whose model is measured, too.")

PRECISIONS = ("float32", "int8", "int4")
BATCH_SIZE = 8


def main(_: list[str]) -> None:
    rows = []
    for name in FLAGS.models:
        rows += quantization_rows(name, partial(_random_model, name))
    if FLAGS.trained:
        workdir = Path(FLAGS.trained)
        rows += quantization_rows(
            "trained",
            lambda: keras.saving.load_model(workdir / "model.keras", compile=False),
            lambda model: _accuracy(model, str(workdir)),
        )
    print(write_csv("quantization", rows))


def quantization_rows(
    name: str,
    make: Callable[[], keras.Model],
    measure: Callable[[keras.Model], float] | None = None,
) -> list[dict[str, Any]]:
    """Returns a row for each precision of the model that `make` gives, always the same one."""
    rows: list[dict[str, Any]] = []
    for precision in PRECISIONS:
        model = make()
        if precision != "float32":
            model.quantize(precision)
        model, size = _saved_and_loaded(model)
        shape = (BATCH_SIZE, *model.input_shape[1:])
        inputs = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
        outputs = model.predict(inputs, verbose=0)
        if not rows:
            expected, full_size = outputs, size
        difference = np.abs(outputs - expected).max() / np.abs(expected).max()
        rows.append(
            {
                "model": name,
                "precision": precision,
                "megabytes": round(size / 1e6, 2),
                "size_ratio": round(size / full_size, 3),
                "largest_difference": round(float(difference), 4),
                "accuracy": "" if measure is None else round(measure(model), 4),
                **environment("tensorflow", "keras"),
            }
        )
        print(rows[-1], flush=True)
    return rows


def _random_model(name: str) -> keras.Model:
    """Returns the same model at each call, its head off the zeros that it starts at."""
    keras.utils.set_random_seed(0)
    model = tk.create_model(name)
    head = model.get_layer("head")
    head.kernel.assign(keras.random.normal(head.kernel.shape, stddev=0.02, seed=0))
    return model


def _saved_and_loaded(model: keras.Model) -> tuple[keras.Model, int]:
    """Returns the model of a file, and the bytes of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.saving.load_model(path), path.stat().st_size


def _accuracy(model: keras.Model, workdir: str) -> float:
    """Returns the accuracy on the final split of a training's data, else on its evaluated one."""
    config, model_config = read_configuration(workdir)
    (chosen,) = parse_sets([config.data.final_split or config.data.eval_split], config.data)
    source = chosen.open(model_config.num_classes, read_class_names(workdir))
    preprocessing = make_preprocessing(config, model_config)
    evaluator = make_evaluator(config, model, None, make_local_engine(), preprocessing)
    return evaluator.evaluate(source)["accuracy"]


if __name__ == "__main__":
    app.run(main)

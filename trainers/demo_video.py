"""Shows what the video demo has learned: `python -m trainers.demo_video --workdir=DIR`.

Prints the result on the test clips, and that of the same model on clips that do not move
(their middle frame in all places) and on clips whose frames are in another order: a model
that is as good there does not look at motion. Draws the attention maps over a clip.
"""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from ml_collections import ConfigDict

import tokenlearner_keras as tk
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from trainers.checkpointing.workdir import read_configuration
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.normalization import normalize
from trainers.data.preprocessing.videos import evaluation_clip
from trainers.data.sources import Source
from trainers.data.sources import make_source
from trainers.engines.flags import make_local_engine
from trainers.evaluation.evaluator import Evaluator
from trainers.experiment import make_preprocessing
from trainers.steps.losses import make_loss
from trainers.utils import cli
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.reporting import read_metrics

FLAGS = flags.FLAGS
PICTURE = "attention_maps.png"
SOURCES = ("freedoom_motion", "freedoom_multilabel")
_CONTROLS = {
    "repeated": "on one frame of each clip, repeated",
    "shuffled": "on the frames of each clip in another order",
}
#: A clip of each of these classes is drawn, where an example has one label.
_SHOWN_CLASSES = ("forward", "strafe_left", "turn_right", "look_up")


def main() -> None:
    """Prints the result and the controls; writes the picture."""
    workdir = FLAGS.workdir or ""
    config, model, preprocessing = finished_run(workdir)
    test = make_source(config.data.source, "test", None)
    _print_result(workdir, config, model, test)
    _print_controls(config, model, preprocessing, test)
    if not any(isinstance(layer, BaseTokenLearner) for layer in model.layers):
        print("\nno TokenLearner in this model, so there are no tokens to show", flush=True)
        return
    path = Path(workdir) / PICTURE
    _draw(config, model, preprocessing, test, path)
    print(f"\nwhat the tokens look at: {path}", flush=True)


def finished_run(
    workdir: str,
) -> tuple[ConfigDict, keras.Model, VideoPreprocessingConfig]:
    """Returns configuration, model and preprocessing of a finished run of the demo.

    Raises:
        ConfigurationError: If the directory holds no such run.
    """
    config, model_config = read_configuration(workdir)
    preprocessing = make_preprocessing(config, model_config)
    is_demo = config.data.source in SOURCES
    if not is_demo or not isinstance(preprocessing, VideoPreprocessingConfig):
        raise ConfigurationError(
            f"The report is about the data sources {', '.join(SOURCES)}. Received a run on "
            f"{config.data.source!r}; for your own data: python -m trainers.evaluate "
            f"--workdir={workdir}."
        )
    path = files.join(workdir, "model.keras")
    if not files.exists(path):
        raise ConfigurationError(
            f"{workdir} holds no finished training: run the training command again to finish it."
        )
    return config, keras.saving.load_model(path, compile=False), preprocessing


def _print_result(workdir: str, config: ConfigDict, model: keras.Model, test: Source) -> None:
    """Prints the result that the training wrote at its end."""
    rows = [r for r in read_metrics(files.join(workdir, "metrics.jsonl")) if r["split"] == "test"]
    if not rows:
        raise ConfigurationError(
            f"{workdir} holds no test result: run the training command again to finish it."
        )
    name, value = headline(rows[-1])
    expected = config.demo.expected_accuracy
    promise = f" (the whole training is expected to reach {expected})" if expected else ""
    print(
        f"\ntest {name} {value:.3f} on {rows[-1]['num_examples']} rendered clips of unseen maps, "
        f"after {rows[-1]['step']} steps{promise}\n"
        f"model {model.name}: {tk.count_macs(model) / 1e6:.1f} million MACs a clip"
    )
    if name == "accuracy":
        print(f"  beside it: chance {1 / test.num_classes:.3f}", flush=True)


def _print_controls(
    config: ConfigDict,
    model: keras.Model,
    preprocessing: VideoPreprocessingConfig,
    test: Source,
) -> None:
    for order, description in _CONTROLS.items():
        metrics = evaluate_order(config, model, preprocessing, test, order)
        name, value = headline(metrics)
        print(f"  the same model {description}: {name} {value:.3f}", flush=True)


def evaluate_order(
    config: ConfigDict,
    model: keras.Model,
    preprocessing: VideoPreprocessingConfig,
    source: Source,
    frame_order: str,
) -> dict[str, float]:
    """Returns the metrics of a trained model on clips whose frames are in another order.

    For `frame_order` see `VideoPreprocessingConfig`.
    """
    evaluator = Evaluator(
        model=model,
        optimizer=None,
        loss=make_loss(config.loss),
        engine=make_local_engine(),
        preprocessing=dataclasses.replace(preprocessing, frame_order=frame_order),
        batch_size=config.batch_size,
        normalization=config.data.normalization,
        multi_label=config.data.multi_label,
    )
    return evaluator.evaluate(source)


def headline(metrics: dict[str, float]) -> tuple[str, float]:
    """Returns the metric of an evaluation to report: its name in words and its value."""
    name = "mean_average_precision" if "mean_average_precision" in metrics else "accuracy"
    return name.replace("_", " "), metrics[name]


def _draw(
    config: ConfigDict,
    model: keras.Model,
    preprocessing: VideoPreprocessingConfig,
    test: Source,
    path: Path,
) -> None:
    chosen = _examples(test)
    clips = np.stack([evaluation_clip(test.load(index), preprocessing) for index in chosen])
    inputs = np.asarray(normalize(clips, config.data.normalization))
    maps = next(iter(tk.attention_maps(model, inputs).values()))
    titles = [_title(test, index) for index in chosen]
    tk.plot_attention_maps(clips, maps, path, titles)


def _examples(test: Source) -> list[tf.Tensor]:
    """Returns the first clip of each class to show; with several labels, the first clips."""
    labels = [test.load(tf.constant(i, tf.int64))["label"] for i in range(test.num_examples)]
    if labels[0].shape.rank:
        return [tf.constant(i, tf.int64) for i in range(len(_SHOWN_CLASSES))]
    wanted = [test.class_names.index(name) for name in _SHOWN_CLASSES]
    numbers = [int(label) for label in labels]
    return [tf.constant(numbers.index(each), tf.int64) for each in wanted]


def _title(test: Source, index: tf.Tensor) -> str:
    label = np.asarray(test.load(index)["label"])
    numbers = [int(label)] if label.ndim == 0 else np.flatnonzero(label)
    return ", ".join(test.class_names[number].replace("_", " ") for number in numbers) or "still"


if __name__ == "__main__":
    cli.define_path("workdir", "The work directory of a finished video demo.")
    cli.run(main, cli.parse_known_flags)

"""Makes the checks before a training and the dry run, and describes the run in a few lines."""

import math
import re
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras import count_macs
from tokenlearner_keras.models.names import ModelConfig
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.init_from import check_init_from
from trainers.checkpointing.workdir import check_workdir
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.configuration.data_options import check_normalization
from trainers.configuration.training_options import BALANCED
from trainers.configuration.training_options import check_training
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.examples import check_kind
from trainers.data.sources import Source
from trainers.data.sources import check_source
from trainers.data.sources import is_multi_label
from trainers.data.sources import name_is_multi_label
from trainers.engines.flags import check_backend
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.sets import configured_sets
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing
from trainers.steps.losses import make_loss
from trainers.steps.metrics import TOP_K
from trainers.steps.metrics import check_scikit_learn
from trainers.steps.train_step import TrainStep
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.errors import TrainingError
from trainers.utils.errors import first_line
from trainers.utils.reporting import format_metrics
from trainers.utils.reporting import log_to_stderr


def check_configuration(config: ConfigDict, workdir: str | None) -> None:
    """Makes the checks that must come before heavy work; reads the work directory only.

    Raises:
        ConfigurationError: If anything is wrong.
    """
    model_config = check_steps(config)
    if not (workdir and checkpoint_steps(files.join(workdir, "checkpoints"))):
        # A run that resumes does not start from it again; it may be gone by then.
        check_init_from(config.init_from)
    for split in ("train_split", "final_split"):
        if config.data[split]:
            check_source(config.data.source, config.data[split], f"data.{split}")
    # Some facts follow from the name, before the data are rendered or read.
    _check_labels(
        config.data.source, name_is_multi_label(config.data.source), config.data.multi_label
    )
    configured_sets(config.data)
    check_workdir(workdir, config, model_config)


def check_steps(config: ConfigDict) -> ModelConfig:
    """Checks the parts of the steps, which needs neither data nor devices.

    Returns the model's configuration, for two classes: only the data determine their number.

    Raises:
        ConfigurationError: If anything is wrong.
    """
    check_backend()
    check_training(config)
    make_loss(config.loss, config.label_smoothing)
    if config.data.multi_label:
        check_scikit_learn("data.multi_label")
    model_config = make_model_config(config, 2)
    make_preprocessing(config, model_config)
    clips = model_config.num_frames is not None
    check_normalization(config.data.normalization, clips=clips)
    return model_config


def check_sources(
    config: ConfigDict,
    preprocessing: Preprocessing,
    train: Source,
    evaluation: Mapping[str, Source],
) -> None:
    """Checks that the data are of the kind that the configuration asks for.

    The best checkpoint is best by the first source of `evaluation`.

    Raises:
        ConfigurationError: If they are not.
    """
    for source in (train, *evaluation.values()):
        check_kind(source, preprocessing)
        check_labels(source, config.data.multi_label, source is train)
    if config.keep_best_metric == "top5_accuracy" and train.num_classes <= TOP_K:
        raise ConfigurationError(
            f"keep_best_metric='top5_accuracy' needs more than {TOP_K} classes. Received "
            f"{train.num_classes} in {train.name}. Choose accuracy, or loss."
        )
    weights = config.class_weights
    if weights not in (None, BALANCED) and len(weights) != train.num_classes:
        raise ConfigurationError(
            f"class_weights must be {train.num_classes} numbers, one for each class of "
            f"{train.name}. Received {len(weights)}. Give as many, or class_weights=balanced."
        )
    if train.num_examples < config.batch_size:
        log_to_stderr(
            f"warning: a batch of {config.batch_size} is more than the {train.num_examples} "
            "examples to train on, so that every step sees some twice; for more steps an epoch "
            "set a smaller --config.batch_size"
        )
    _warn_of_mirrored_classes(train, preprocessing)
    name, first = next(iter(evaluation.items()))
    if config.keep_best_metric == "mean_class_accuracy" and is_multi_label(first):
        raise ConfigurationError(
            "keep_best_metric='mean_class_accuracy' needs one label an example, and those of "
            f"{name!r} have any number. Choose accuracy, or loss."
        )


def _warn_of_mirrored_classes(train: Source, preprocessing: Preprocessing) -> None:
    if not preprocessing.flip or getattr(train, "mirrored_classes", None):
        return
    named = [name for name in train.class_names if _names_a_side(name, train.class_names)]
    if named:
        section = "video" if isinstance(preprocessing, VideoPreprocessingConfig) else "augmentation"
        shown = ", ".join([*named[:3], *(["…"] if len(named) > 3 else [])])
        log_to_stderr(
            "warning: half of the training examples are mirrored and keep their labels, and "
            f"{len(named)} of {train.num_classes} classes name a side ({shown}); to mirror none, "
            f"set --config.{section}.flip=False"
        )


def _names_a_side(name: str, class_names: tuple[str, ...]) -> bool:
    """Whether a class is "turn left" or "LeftTurn", not "bright"; "goleft" beside a "goright"."""
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
    mirrored = {"left": "right", "right": "left"}
    other = re.sub("left|right", lambda side: mirrored[side[0]], name.lower())
    is_mirrored = other != name.lower() and other in map(str.lower, class_names)
    return is_mirrored or any(re.fullmatch("(left|right)(wards?)?", word) for word in words)


def check_labels(source: Source, multi_label: bool, is_trained_on: bool = False) -> None:
    """Checks that the labels of a source are what `data.multi_label` says.

    Without it, a set that is only evaluated may have several labels: any of them is then right.

    Raises:
        ConfigurationError: If they are not.
    """
    if multi_label or is_trained_on:
        _check_labels(source.name, is_multi_label(source), multi_label)


def _check_labels(name: str, several: bool | None, multi_label: bool) -> None:
    if several is not None and several != multi_label:
        received = "any number of labels" if several else "one label"
        hint = " and loss='sigmoid'" if several else ""
        raise ConfigurationError(
            f"data.multi_label is {multi_label}, and each example of {name} has {received}. Set "
            f"data.multi_label={several}{hint}, or choose another data.source."
        )


def log_notes(*sources: Source | None) -> None:
    """Prints to stderr what class folders leave out, each line once."""
    for note in dict.fromkeys(each for source in sources for each in getattr(source, "notes", ())):
        log_to_stderr(note)


def describe_data(train: Source, evaluation: dict[str, Source], total_steps: int) -> str:
    """Returns one line: what is trained and evaluated on, and for how long."""
    sets = ", ".join(f"{source.num_examples} in {name}" for name, source in evaluation.items())
    return (
        f"{train.name}: {train.num_examples} examples to train on, {sets}, "
        f"{train.num_classes} classes, {total_steps} steps"
    )


def describe_model(model: keras.Model) -> str:
    """Returns one line: the model's name, its size and its cost."""
    is_video = len(model.input_shape) == 5
    frozen = [layer for layer in model.layers if not layer.trainable]
    held = f" ({sum(layer.count_params() for layer in frozen):,} of them frozen)" if frozen else ""
    return (
        f"{model.name}: {model.count_params():,} parameters{held}, "
        f"{count_macs(model) / 1e6:.1f} million MACs {'a clip' if is_video else 'an image'}"
    )


def describe_class_weights(weights: tuple[float, ...], class_names: tuple[str, ...]) -> str:
    """Returns one line: the weights in the training loss, those of the rarest classes first."""
    order = sorted(zip(weights, class_names, strict=True), reverse=True)
    shown = ", ".join(f"{name} {weight:.3g}" for weight, name in order[:10])
    return f"class weights: {shown}{', …' if len(order) > 10 else ''}"


@contextmanager
def failures_are_findings() -> Iterator[None]:
    """Turns a failure of the data, the steps or the files into a ConfigurationError, status 2."""
    try:
        yield
    except (DataError, TrainingError, OSError, tf.errors.OpError) as error:
        raise ConfigurationError(f"{first_line(error)}.") from error


def run_one_step_each(
    train_step: TrainStep,
    evaluator: Evaluator,
    batches: Iterator[Any],
    step: int,
    sources: Mapping[str, Source],
    final_split: str | None = None,
) -> None:
    """Runs one training step and one evaluation step per source, and prints the results.

    Videos of `final_split`, which is judged after the training, are evaluated by all their views.

    Raises:
        TrainingError: If the loss or the gradient is not finite.
    """
    sums = train_step.run(batches, step, 1)
    loss, norm = sums["loss"] / sums["num_examples"], sums["gradient_norm"]
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(
            f"The first step already diverges: loss {loss}, gradient norm {norm}. Check the "
            "data, data.normalization and optimizer.learning_rate."
        )
    print(f"one training step: loss {loss:.4g}, gradient norm {norm:.4g}", flush=True)
    for name, source in sources.items():
        metrics = evaluator.evaluate(source, num_batches=1, views=name == final_split)
        print(f"one batch of {name}: {format_metrics(metrics)}", flush=True)

"""Builds the parts of an experiment from its configuration."""

import dataclasses
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from tokenlearner_keras.models.names import model_config
from tokenlearner_keras.models.vision_transformer import build_model
from trainers.checkpointing.workdir import check_same_data
from trainers.checkpointing.workdir import read_file_splits
from trainers.configuration.configuration import model_fields
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import RecordsConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.configuration.schedule import TrainingSchedule
from trainers.configuration.training_options import BALANCED
from trainers.data.decode_errors import explain_data_failures
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.sources import Source
from trainers.data.sources import class_counts
from trainers.data.sources import make_source
from trainers.engines.engine import Engine
from trainers.engines.hosts import Hosts
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.sets import configured_sets
from trainers.steps.fine_tuning import freeze_layers
from trainers.steps.fine_tuning import rate_scales
from trainers.steps.logits import ViewReduction
from trainers.steps.logits import make_view_reduction
from trainers.steps.losses import make_loss
from trainers.steps.optimizer import make_learning_rate
from trainers.steps.optimizer import make_optimizer
from trainers.steps.train_step import TrainStep
from trainers.utils.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The sources of a training."""

    train: Source
    evaluation: dict[str, Source]  # by name; the best checkpoint is best by the first
    final: Source | None  # evaluated once, after the training


def open_training_data(config: ConfigDict, workdir: str, hosts: Hosts) -> TrainingData:
    """Opens the sources of a training; all hosts of it have to call this.

    Raises:
        ConfigurationError: If one is missing, or is not what the run in the work directory, or
            another host, has.
    """
    data, records = config.data, make_records(config)
    with hosts.all_succeed():
        known = read_file_splits(workdir)
        train = make_source(data.source, data.train_split, data.data_dir, None, records, known)
        names, splits = train.class_names, getattr(train, "file_splits", {})
        evaluation = {
            each.name: each.open(train.num_classes, names, records, splits)
            for each in configured_sets(data)
        }
        final = None
        if data.final_split:
            final = make_source(
                data.source, data.final_split, data.data_dir, names, records, splits
            )
        check_same_data(workdir, train)
    checksum = zlib.crc32(repr(sorted(splits.items())).encode())
    hosts.check_same("how the files are split (checksums)", checksum)
    return TrainingData(train, evaluation, final)


def make_model_config(config: ConfigDict, num_classes: int) -> ModelConfig:
    """Returns the configuration of the model.

    Raises:
        ConfigurationError: If the model's name or a field is wrong.
    """
    try:
        fields = model_fields(config)
        model = model_config(config.model.name, num_classes=num_classes, **fields)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"model: {error}") from error
    if model.classifier is None:
        raise ConfigurationError(
            f"model: expected a model with a classifier. Received {config.model.name!r} with "
            "classifier=None."
        )
    return model


def make_model(
    config: ConfigDict, model: ModelConfig, schedule: TrainingSchedule
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """Builds model and optimizer; call it in the scope of the engine.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    learning_rate = make_learning_rate(
        config.optimizer, warmup_steps=schedule.warmup, total_steps=schedule.total
    )
    keras.utils.set_random_seed(config.seed)
    with global_dtype_policy(config.dtype_policy):
        built = build_model(model, name=config.model.name)
    freeze_layers(built, config.optimizer.freeze)
    variables = built.trainable_variables
    scales = rate_scales(model, variables, config.optimizer.layer_decay)
    optimizer = make_optimizer(config.optimizer, learning_rate, variables, scales)
    if config.ema_decay is not None:
        optimizer.use_ema = True
        optimizer.ema_momentum = config.ema_decay
    optimizer.build(variables)
    return built, optimizer


@contextmanager
def global_dtype_policy(name: str) -> Iterator[None]:
    """Sets Keras' policy inside the block only: a notebook may build other models."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def make_class_weights(config: ConfigDict, source: Source) -> tuple[float, ...]:
    """Returns `class_weights`, not None, as numbers; "balanced" reads all labels of a source.

    Balanced weights are inverse to the number of examples, and their mean over all examples is 1. A
    class without examples has the weight 0.

    Raises:
        DataError: If an example cannot be read.
    """
    if config.class_weights != BALANCED:
        return tuple(map(float, config.class_weights))
    with explain_data_failures(source, lambda: range(source.num_examples)):
        counts = class_counts(source, skip_unreadable=config.data.max_bad_examples > 0)
    mean = counts.sum() / np.count_nonzero(counts)
    return tuple(float(mean / count) if count else 0.0 for count in counts)


def make_train_step(
    config: ConfigDict,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    engine: Engine,
    class_weights: tuple[float, ...] | None = None,
) -> TrainStep:
    """Returns the training step of a configuration, for a model built in the engine's scope.

    For `class_weights` see `make_class_weights`.

    Raises:
        ConfigurationError: If the engine cannot run it, or its devices cannot share the batch.
    """
    elastic_tokens = model_fields(config).get("elastic_tokens") or ()
    return TrainStep(
        model=model,
        optimizer=optimizer,
        loss=make_loss(config.loss, config.label_smoothing, class_weights),
        engine=engine,
        batch_size=config.batch_size,
        normalization=config.data.normalization,
        global_clipnorm=config.optimizer.global_clipnorm,
        seed=config.seed,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        jit_compile=config.jit_compile,
        multi_label=config.data.multi_label,
        elastic_tokens=tuple(sorted(elastic_tokens)),
    )


def make_evaluator(
    config: ConfigDict,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None,
    engine: Engine,
    preprocessing: Preprocessing,
) -> Evaluator:
    """Returns the evaluator of a configuration: no label smoothing or class weights in its loss.

    The model is built in the engine's scope. Without an optimizer it is evaluated as it is, else
    with the moving averages of its weights, if there are any.
    """
    return Evaluator(
        model=model,
        optimizer=optimizer,
        loss=make_loss(config.loss),
        engine=engine,
        preprocessing=preprocessing,
        batch_size=config.batch_size,
        normalization=config.data.normalization,
        multi_label=config.data.multi_label,
        view_reduction=make_view_reduction(config.video.view_reduction, config.loss),
        max_bad_examples=config.data.max_bad_examples,
    )


def make_preprocessing(config: ConfigDict, model: ModelConfig) -> Preprocessing:
    """Returns the preprocessing of a model's inputs: the section `video`, or `augmentation`.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    if model.num_frames is None:
        return PreprocessingConfig(
            image_size=model.image_size,
            channels=model.channels,
            exif_orientation=config.data.exif_orientation,
            scaled_decoding=config.data.scaled_decoding,
            **config.augmentation.to_dict(),
        )
    return VideoPreprocessingConfig(
        image_size=model.image_size,
        channels=model.channels,
        num_frames=model.num_frames,
        scaled_decoding=config.data.scaled_decoding,
        **config.video.to_dict(),
    )


def make_records(config: ConfigDict) -> RecordsConfig:
    """Returns how `data.source=records` is read: the section `records`, `data.multi_label`.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    return RecordsConfig(
        multi_label=config.data.multi_label,
        recover=config.data.max_bad_examples > 0,
        **config.records.to_dict(),
    )


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with what is needed to predict files, or to export it.

    Attributes:
        model: With the weights to use; takes (B, *input_shape).
        preprocessing: Makes its inputs.
        normalization: Name of the input normalisation.
        activation: Makes probabilities of its outputs: "softmax", "sigmoid" or "none".
        view_reduction: Reduces the logits of a video's views to one answer.
        class_names: K names.
        description: One line on where the weights are from.
    """

    model: keras.Model
    preprocessing: Preprocessing
    normalization: str
    activation: str
    view_reduction: ViewReduction
    class_names: tuple[str, ...]
    description: str

    @property
    def takes_videos(self) -> bool:
        """Whether it takes videos, or images."""
        return isinstance(self.preprocessing, VideoPreprocessingConfig)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an input: (H, W, C), or (T, H, W, C) of videos."""
        image = (*self.preprocessing.image_size, self.preprocessing.channels)
        if isinstance(self.preprocessing, VideoPreprocessingConfig):
            return (self.preprocessing.num_frames, *image)
        return image

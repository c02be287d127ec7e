"""Builds the parts of an experiment from its configuration."""

import dataclasses
import math

import keras
from ml_collections import ConfigDict

from tokenlearner_keras.models.model_names import ModelConfig
from tokenlearner_keras.models.model_names import model_config
from tokenlearner_keras.models.vision_transformer import build_model
from trainers.average_precision import check_average_precision
from trainers.configuration import model_fields
from trainers.data.bad_examples import check_limit
from trainers.data.example_preprocessing import Preprocessing
from trainers.data.preprocessing_config import PreprocessingConfig
from trainers.data.records_config import RecordsConfig
from trainers.data.video_preprocessing_config import VideoPreprocessingConfig
from trainers.durations import duration_steps
from trainers.engines.engine import Engine
from trainers.evaluation import Evaluator
from trainers.losses import make_loss
from trainers.optimization import WarmupSchedule
from trainers.optimization import exclude_from_decay
from trainers.optimization import make_optimizer
from trainers.optimization import make_schedule
from trainers.train_step import TrainStep
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean
from trainers.view_reduction import make_view_reduction

DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Durations in steps.

    Attributes:
        total: Length of the training.
        warmup: Steps of the learning rate's warm-up.
        log: Steps between rows of training metrics.
        evaluate: Steps between evaluations; 0: only after the last step.
        checkpoint: Steps between checkpoints; 0: only after the last step.
    """

    total: int
    warmup: int
    log: int
    evaluate: int
    checkpoint: int

    def steps_to_event(self, step: int, limit: int) -> int:
        """Returns the steps from `step` to the next event, at most `limit`."""
        intervals = (self.log, self.evaluate, self.checkpoint)
        gaps = [interval - step % interval for interval in intervals if interval]
        return max(1, min(limit, self.total - step, *gaps))

    def due(self, step: int, interval: int) -> bool:
        """Whether an interval ends at this step; all end at the last one."""
        return step == self.total or (interval > 0 and step % interval == 0)


#: For a model that takes no step. Nothing but the learning rate depends on durations, and
#: in a compiled step they are numbers, which change nothing else of it.
NO_TRAINING = Schedule(total=1, warmup=0, log=1, evaluate=0, checkpoint=0)


def make_durations(config: ConfigDict, num_examples: int) -> Schedule:
    """Returns the durations of a configuration in steps.

    Raises:
        ConfigurationError: If a duration is missing or wrong.
    """
    total = duration_steps(config, "total", num_examples=num_examples)
    if total < 1:
        raise ConfigurationError(
            "total_steps, total_epochs or total_examples: the training must last at least one "
            "step. Received: 0."
        )
    defaults = {"warmup": 0, "log": max(1, total // 100), "eval": 0, "checkpoint": 0}
    steps = {
        name: duration_steps(
            config, name, num_examples=num_examples, total_steps=total, default=default
        )
        for name, default in defaults.items()
    }
    return Schedule(
        total, steps["warmup"], max(1, steps["log"]), steps["eval"], steps["checkpoint"]
    )


def make_model_config(config: ConfigDict, num_classes: int) -> ModelConfig:
    """Returns the configuration of the model.

    Args:
        config: The whole configuration.
        num_classes: Classes of the data.

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


def make_learning_rate(config: ConfigDict, schedule: Schedule) -> WarmupSchedule:
    """Returns the learning rate as a function of the step, counted from 0.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    return make_schedule(config.optimizer, warmup_steps=schedule.warmup, total_steps=schedule.total)


def make_model(
    config: ConfigDict, model: ModelConfig, schedule: Schedule
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """Builds model and optimizer; call it in the scope of the engine.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    optimizer = make_optimizer(config.optimizer, make_learning_rate(config, schedule))
    if config.ema_decay is not None:
        optimizer.use_ema = True
        optimizer.ema_momentum = config.ema_decay
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.dtype_policy)
    built = build_model(model, name=config.model.name)
    exclude_from_decay(optimizer, built.trainable_variables, config.optimizer.weight_decay_mask)
    optimizer.build(built.trainable_variables)
    return built, optimizer


def make_train_step(
    config: ConfigDict,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    engine: Engine,
) -> TrainStep:
    """Returns the training step of a configuration.

    Args:
        config: The whole configuration.
        model: From `make_model`.
        optimizer: From `make_model`.
        engine: In whose scope they were built.

    Raises:
        ConfigurationError: If the engine cannot run it, or its devices not share the batch.
    """
    return TrainStep(
        model=model,
        optimizer=optimizer,
        loss=make_loss(config.loss, config.label_smoothing),
        engine=engine,
        batch_size=config.batch_size,
        normalization=config.data.normalization,
        global_clipnorm=config.optimizer.global_clipnorm,
        seed=config.seed,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        jit_compile=config.jit_compile,
        multi_label=config.data.multi_label,
    )


def make_evaluator(
    config: ConfigDict,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None,
    engine: Engine,
    preprocessing: Preprocessing,
    averages: bool = True,
) -> Evaluator:
    """Returns the evaluator of a configuration, whose loss is without label smoothing.

    Args:
        config: The whole configuration.
        model: From `make_model`.
        optimizer: From `make_model`; None if the model holds what is to be evaluated.
        engine: In whose scope they were built.
        preprocessing: From `make_preprocessing`.
        averages: Whether moving averages of the weights are evaluated, if there are any.
    """
    return Evaluator(
        model=model,
        optimizer=optimizer,
        loss=make_loss(config.loss),
        engine=engine,
        preprocessing=preprocessing,
        batch_size=config.batch_size,
        normalization=config.data.normalization,
        averages=averages,
        multi_label=config.data.multi_label,
        view_reduction=make_view_reduction(config.video.view_reduction, config.loss),
        max_bad_examples=config.data.max_bad_examples,
    )


def check_training(config: ConfigDict) -> None:
    """Checks the settings of the training that need neither data nor devices.

    Raises:
        ConfigurationError: If a value is out of range, with the value and the range.
    """
    for name in (
        "batch_size",
        "gradient_accumulation_steps",
        "steps_per_loop",
        "keep_checkpoints",
    ):
        if config[name] < 1:
            raise ConfigurationError(f"{name} must be at least 1. Received: {config[name]}.")
    if not 0 <= config.seed < 2**32:
        raise ConfigurationError(f"seed must be in [0, 2**32). Received: {config.seed}.")
    if config.dtype_policy not in DTYPE_POLICIES:
        raise ConfigurationError(
            f"dtype_policy must be one of {', '.join(DTYPE_POLICIES)}. Received: "
            f"{config.dtype_policy!r}.{did_you_mean(config.dtype_policy, DTYPE_POLICIES)}"
        )
    if config.dtype_policy == "mixed_float16":
        raise ConfigurationError(
            "dtype_policy mixed_float16 needs loss scaling, which the trainer does not do. "
            "Use mixed_bfloat16."
        )
    if config.ema_decay is not None and not 0 < config.ema_decay < 1:
        raise ConfigurationError(
            f"ema_decay must be between 0 and 1. Received: {config.ema_decay}."
        )
    make_loss(config.loss, config.label_smoothing)
    check_limit(config.data.max_bad_examples)
    if config.data.multi_label and config.loss != "sigmoid":
        raise ConfigurationError(
            "data.multi_label=True needs a loss for several labels at once: loss='sigmoid'. "
            f"Received loss={config.loss!r}."
        )
    if config.data.multi_label:
        check_average_precision()
    if not 0 <= config.data.mixup_alpha < math.inf:
        raise ConfigurationError(
            f"data.mixup_alpha must be a number of at least 0. Received: {config.data.mixup_alpha}."
        )
    # The number of examples does not matter for what can be wrong with the units; with many,
    # epochs might seem to be too many.
    make_durations(config, num_examples=1)


def check_optimizer(config: ConfigDict) -> None:
    """Checks the section `optimizer` by building one and throwing it away.

    This uses a device, so it comes after the engine.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    optimizer = make_optimizer(config, make_schedule(config, warmup_steps=0, total_steps=1))
    exclude_from_decay(optimizer, [], config.weight_decay_mask)


def make_preprocessing(config: ConfigDict, model: ModelConfig) -> Preprocessing:
    """Returns what a model's inputs are made by: the section `video`, or `augmentation`.

    Args:
        config: The whole configuration.
        model: From `make_model_config`.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    if model.num_frames is None:
        return PreprocessingConfig(
            image_size=model.image_size,
            exif_orientation=config.data.exif_orientation,
            **config.augmentation.to_dict(),
        )
    return VideoPreprocessingConfig(
        image_size=model.image_size, num_frames=model.num_frames, **config.video.to_dict()
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

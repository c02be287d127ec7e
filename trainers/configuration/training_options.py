"""Checks how to train: the keys without a section, and the section `optimizer`."""

import dataclasses
import math

from ml_collections import ConfigDict

from trainers.configuration.checks import check
from trainers.configuration.checks import check_at_least_zero
from trainers.configuration.checks import check_choice
from trainers.configuration.checks import check_positive
from trainers.configuration.checks import check_share
from trainers.configuration.data_options import DataConfig
from trainers.configuration.schedule import make_training_schedule
from trainers.utils.errors import ConfigurationError

DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
OPTIMIZERS = ("adamw", "lamb", "sgd")
SCHEDULES = ("cosine", "linear", "constant")
DECAY_MASKS = ("kernels", "all")
#: Metrics that can choose the best checkpoint, and whether more of them is better.
BEST_METRICS = {
    "accuracy": True,
    "top5_accuracy": True,
    "mean_class_accuracy": True,
    "mean_average_precision": True,
    "loss": False,
}


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The keys of a configuration without a section, apart from its durations.

    Args:
        seed: Seed of the initial weights, the order of the data, augmentation and dropout.
        batch_size: Examples of a step, on all devices together.
        gradient_accumulation_steps: Micro-batches that each replica cuts its share of the
            batch into, to take less memory.
        steps_per_loop: Steps that run at a stretch, without a look at signals.
        dtype_policy: Arithmetic of the model: float32 or mixed_bfloat16.
        jit_compile: Whether XLA compiles the step on TensorFlow, on one replica.
        loss: softmax, or sigmoid for classes that are judged one by one.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        class_weights: What multiplies the training loss of the examples of each class: numbers in
            the order of the classes, or balanced, which is inverse to the number of training
            examples; None: nothing. The loss of an evaluation has no weights.
        ema_decay: Share that moving averages of the weights keep at a step, in (0, 1); None:
            no averages. Where there are any, they are evaluated and saved.
        keep_checkpoints: How many of the newest checkpoints stay.
        keep_best_metric: A metric such as accuracy: the checkpoint best by it stays, too.
        init_from: A work directory, .keras or .npz file whose weights to start from.
        topology: The TPU slice that trainers.tpu_check compiles for unless told otherwise.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    seed: int = 0
    batch_size: int = 128
    gradient_accumulation_steps: int = 1
    steps_per_loop: int = 100
    dtype_policy: str = "float32"
    jit_compile: bool = False
    loss: str = "softmax"
    label_smoothing: float = 0.0
    class_weights: str | tuple[float, ...] | None = None
    ema_decay: float | None = None
    keep_checkpoints: int = 3
    keep_best_metric: str | None = None
    init_from: str | None = None
    topology: str = "v5e:2x2"

    def __post_init__(self) -> None:
        check_positive("batch_size", self.batch_size)
        check_positive("gradient_accumulation_steps", self.gradient_accumulation_steps)
        check_positive("steps_per_loop", self.steps_per_loop)
        check_positive("keep_checkpoints", self.keep_checkpoints)
        check(0 <= self.seed < 2**32, "seed", "in [0, 2**32)", self.seed)
        check_choice("dtype_policy", self.dtype_policy, DTYPE_POLICIES)
        if self.dtype_policy == "mixed_float16":
            raise ConfigurationError(
                "dtype_policy mixed_float16 needs loss scaling, which the trainer does not do. "
                "Use mixed_bfloat16."
            )
        _check_class_weights(self.class_weights)
        fits = self.ema_decay is None or 0 < self.ema_decay < 1
        check(fits, "ema_decay", "between 0 and 1", self.ema_decay)
        if self.keep_best_metric is not None:
            check_choice("keep_best_metric", self.keep_best_metric, (*BEST_METRICS, None))


BALANCED = "balanced"


def _check_class_weights(weights: object) -> None:
    if isinstance(weights, (tuple, list)):
        fits = all(isinstance(each, (int, float)) and 0 <= each < math.inf for each in weights)
        fits = fits and any(weights)
    else:
        fits = weights in (None, BALANCED)
    expected = (
        "None, balanced, or a number of at least 0 for each class, one above 0, such as (1.0, 2.5)"
    )
    check(fits, "class_weights", expected, weights)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The section `optimizer` of a configuration.

    Args:
        name: adamw, lamb or sgd.
        learning_rate: Rate after the warm-up.
        end_learning_rate: Rate at the last step.
        schedule: How the rate gets from the one to the other: cosine or linear; or constant.
        weight_decay: Share of a weight that a step takes off, times the rate.
        weight_decay_mask: What decays: kernels or all.
        global_clipnorm: Largest norm of the gradient; None or 0: any.
        momentum: Momentum of sgd.
        beta_1: What adamw and lamb keep of the first moment at a step.
        beta_2: What they keep of the second moment.
        epsilon: What they add to the root of the second moment.
        layer_decay: Share in (0, 1] of its learning rate that each block passes on to the one
            before it, from the head, which has the whole rate, down to the embedding; None: all
            have the same. The rate multiplies the decay, which so falls with it.
        freeze: Patterns of the names of layers that are not trained, with commas between, such as
            embedding,encoder_block_[0-5].

    Raises:
        ConfigurationError: If a value is out of range.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    end_learning_rate: float = 0.0
    schedule: str = "cosine"
    weight_decay: float = 0.0
    weight_decay_mask: str = "kernels"
    global_clipnorm: float | None = 1.0
    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    layer_decay: float | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("optimizer.name", self.name, OPTIMIZERS)
        check_choice("optimizer.schedule", self.schedule, SCHEDULES)
        check_choice("optimizer.weight_decay_mask", self.weight_decay_mask, DECAY_MASKS)
        for name in ("learning_rate", "end_learning_rate", "weight_decay", "epsilon"):
            check_at_least_zero(f"optimizer.{name}", getattr(self, name))
        check_at_least_zero("optimizer.global_clipnorm", self.global_clipnorm or 0)
        check_share("optimizer.momentum", self.momentum)
        for name in ("beta_1", "beta_2"):
            value = getattr(self, name)
            check(0 <= value < 1, f"optimizer.{name}", "at least 0 and below 1", value)
        decay = self.layer_decay
        fits = decay is None or 0 < decay <= 1
        hint = "Fine-tuning recipes have 0.65 to 0.9; None is off."
        check(fits, "optimizer.layer_decay", "more than 0, at most 1", decay, hint)
        fits = all(isinstance(pattern, str) and pattern for pattern in self.freeze)
        expected = "patterns of names, such as ('embedding', 'encoder_block_*')"
        check(fits, "optimizer.freeze", expected, self.freeze)


def check_training(config: ConfigDict) -> None:
    """Checks the settings of the training that need neither data nor devices."""
    names = [field.name for field in dataclasses.fields(TrainingConfig)]
    training = TrainingConfig(**{name: config[name] for name in names})
    data = DataConfig(**config.data.to_dict())
    OptimizerConfig(**config.optimizer.to_dict())
    if data.multi_label and training.loss != "sigmoid":
        raise ConfigurationError(
            "data.multi_label=True needs a loss for several labels at once: loss='sigmoid'. "
            f"Received loss={training.loss!r}."
        )
    if data.multi_label and training.class_weights is not None:
        raise ConfigurationError(
            "class_weights are for examples of one class, and with data.multi_label=True an "
            f"example has any number. Received: {training.class_weights!r}. Set class_weights=None."
        )
    best = training.keep_best_metric
    if best not in (None, "loss") and (best == "mean_average_precision") != data.multi_label:
        others = "mean_average_precision" if data.multi_label else "accuracy or mean_class_accuracy"
        raise ConfigurationError(
            f"keep_best_metric={best!r} is not among the metrics of an evaluation with "
            f"data.multi_label={data.multi_label}. Choose {others}, or loss."
        )
    # Mistakes in units do not depend on the number of examples; with a large number, the
    # epochs might seem too many.
    make_training_schedule(config, num_examples=1)

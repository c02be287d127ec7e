"""Checks keys of the configuration that need neither data nor devices."""

import math

from ml_collections import ConfigDict

from trainers.configuration.schedule import make_training_schedule
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


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
    check_limit(config.data.max_bad_examples)
    if config.data.multi_label and config.loss != "sigmoid":
        raise ConfigurationError(
            "data.multi_label=True needs a loss for several labels at once: loss='sigmoid'. "
            f"Received loss={config.loss!r}."
        )
    if not 0 <= config.data.mixup_alpha < math.inf:
        raise ConfigurationError(
            f"data.mixup_alpha must be a number of at least 0. Received: {config.data.mixup_alpha}."
        )
    # Mistakes in units do not depend on the number of examples; with a large number, the
    # epochs might seem too many.
    make_training_schedule(config, num_examples=1)


#: Metrics that can choose the best checkpoint, and whether more of them is better.
BEST_METRICS = {
    "accuracy": True,
    "top5_accuracy": True,
    "mean_class_accuracy": True,
    "mean_average_precision": True,
    "loss": False,
}


def check_best_metric(name: str | None, multi_label: bool | None = None) -> None:
    """Checks `keep_best_metric` of a configuration.

    Args:
        name: The metric; None keeps no best checkpoint.
        multi_label: Whether the evaluated examples have any number of labels. None allows the
            metrics of both kinds.

    Raises:
        ConfigurationError: If it is neither None nor one of `BEST_METRICS`, or if evaluations
            do not have it.
    """
    if name is not None and name not in BEST_METRICS:
        raise ConfigurationError(
            f"keep_best_metric must be one of {', '.join(BEST_METRICS)}, or None. Received: "
            f"{name!r}.{did_you_mean(name, BEST_METRICS)}"
        )
    if name in (None, "loss") or multi_label is None:
        return
    if (name == "mean_average_precision") != multi_label:
        hint = "mean_average_precision" if multi_label else "accuracy or mean_class_accuracy"
        raise ConfigurationError(
            f"keep_best_metric={name!r} is not among the metrics of an evaluation with "
            f"data.multi_label={multi_label}. Choose {hint}, or loss."
        )


def check_limit(limit: int) -> None:
    """Checks `data.max_bad_examples`; raises ConfigurationError if it is below 0."""
    if limit < 0:
        raise ConfigurationError(
            f"data.max_bad_examples: expected 0 or more, received {limit}; 0 stops at the "
            "first example that cannot be read"
        )


#: kind -> (mean, standard deviation) of each channel, in units of a byte.
CHANNEL_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (
        (0.485 * 255, 0.456 * 255, 0.406 * 255),
        (0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
    "unit": ((127.5,), (127.5,)),
    "zero_one": ((0.0,), (255.0,)),
}


#: The kind that normalizes each clip by its own statistics.
CLIP = "clip"


NORMALIZATIONS = tuple(sorted((*CHANNEL_STATISTICS, CLIP)))


def check_normalization(kind: str, *, clips: bool | None = None) -> None:
    """Checks a kind of normalization, before any work starts.

    Args:
        kind: See `normalize`.
        clips: Whether clips are normalized, or images; None if it is not known yet.

    Raises:
        ConfigurationError: If `kind` is not one of `NORMALIZATIONS`, or is "clip" for images.
    """
    if kind == CLIP and clips is False:
        others = ", ".join(sorted(CHANNEL_STATISTICS))
        raise ConfigurationError(
            f"data.normalization: expected one of {others} for images, received {kind!r}, "
            "which is for the clips of a model with num_frames; correct the configuration"
        )
    if kind not in NORMALIZATIONS:
        raise ConfigurationError(
            f"data.normalization: expected one of {', '.join(NORMALIZATIONS)}, "
            f"received {kind!r}; correct the configuration.{did_you_mean(kind, NORMALIZATIONS)}"
        )

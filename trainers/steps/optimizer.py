"""Builds the optimizer and the learning rate; swaps its averages of the weights into the model."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from trainers.configuration.training_options import OptimizerConfig
from trainers.engines.engine import to_numpy
from trainers.utils.errors import ConfigurationError


@keras.saving.register_keras_serializable(package="tokenlearner_keras_trainers")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then cosine, linear or no decay to an end value.

    The first update has step 0, and so rate 0 if there is a warm-up, as in the reference: `base *
    step / warmup_steps`. `end` is the rate at the last of all `total_steps`.
    """

    def __init__(
        self, base: float, end: float, warmup_steps: int, total_steps: int, decay: str
    ) -> None:
        super().__init__()
        self.base = base
        self.end = end
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.decay = decay

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        length = float(max(self.total_steps - self.warmup_steps, 1))
        progress = ops.clip((step - self.warmup_steps) / length, 0.0, 1.0)
        remaining = {
            "cosine": 0.5 * (1.0 + ops.cos(3.141592653589793 * progress)),
            "linear": 1.0 - progress,
            "constant": ops.ones_like(progress),
        }[self.decay]
        rate = self.end + (self.base - self.end) * remaining
        warmup = self.base * step / float(max(self.warmup_steps, 1))
        return ops.where(step < self.warmup_steps, warmup, rate)

    def get_config(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "end": self.end,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "decay": self.decay,
        }


class _TrainerOptimizer(keras.optimizers.Optimizer):
    """Makes a Keras optimizer take reduced gradients, and a rate for each variable.

    The gradients are already summed over replicas. Keras sums them after its clipping. Ours are
    summed first, because a clip by global norm is only right on the gradient of the global batch.

    Attributes:
        rate_scales: What multiplies the learning rate, and so the decay, of each variable, in the
            order of `build`. None: nothing does.
    """

    rate_scales: tuple[float, ...] | None = None

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return list(grads_and_vars)

    def _apply_weight_decay(self, variables: Any) -> None:
        # Else in `update_step`, which knows the variable's rate.
        if self.rate_scales is None:
            super()._apply_weight_decay(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.rate_scales is not None:
            learning_rate = learning_rate * self.rate_scales[self._get_variable_index(variable)]
            if self.weight_decay is not None and self._use_weight_decay(variable):
                share = ops.cast(learning_rate * self.weight_decay, variable.dtype)
                self.assign_sub(variable, ops.multiply(variable, share))
        super().update_step(gradient, variable, learning_rate)


class AdamW(_TrainerOptimizer, keras.optimizers.AdamW):
    """keras.optimizers.AdamW; the learning rate multiplies the decay."""


class Lamb(_TrainerOptimizer, keras.optimizers.Lamb):
    """keras.optimizers.Lamb."""


class SGD(_TrainerOptimizer, keras.optimizers.SGD):
    """keras.optimizers.SGD."""


def make_learning_rate(
    config: OptimizerConfig, *, warmup_steps: int, total_steps: int
) -> WarmupSchedule:
    """Returns the learning rate by step; `total_steps` includes the warm-up.

    Raises:
        ConfigurationError: If the warm-up is longer than the training.
    """
    if warmup_steps > total_steps:
        raise ConfigurationError(
            f"The warm-up must not be longer than the training. Received {warmup_steps} "
            f"and {total_steps} steps. Shorten it, such as --config.warmup_percent=5."
        )
    return WarmupSchedule(
        config.learning_rate, config.end_learning_rate, warmup_steps, total_steps, config.schedule
    )


def make_optimizer(
    config: OptimizerConfig,
    schedule: WarmupSchedule,
    variables: list[keras.Variable],
    rate_scales: tuple[float, ...] | None = None,
) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a model's trainable variables, to be built for them.

    `rate_scales` multiply the learning rate of each variable; None: all have the same.

    Its gradients must be summed over replicas and clipped. With the `weight_decay_mask` "kernels"
    only matrices and convolution kernels decay, not biases, LayerNorms or the tables of positions
    and tokens; with "all" every variable does, as in the reference.
    """
    common = {"learning_rate": schedule, "weight_decay": config.weight_decay or None}
    adam = {"beta_1": config.beta_1, "beta_2": config.beta_2, "epsilon": config.epsilon}
    makers: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "adamw": lambda: AdamW(**{**common, "weight_decay": config.weight_decay}, **adam),
        "lamb": lambda: Lamb(**common, **adam),
        "sgd": lambda: SGD(**common, momentum=config.momentum),
    }
    optimizer = makers[config.name]()
    optimizer.rate_scales = rate_scales
    if config.weight_decay_mask == "kernels":
        optimizer.exclude_from_weight_decay(
            var_list=[variable for variable in variables if variable.name != "kernel"]
        )
    return optimizer


def clip_by_global_norm(gradients: list[Any], clipnorm: float | None) -> tuple[list[Any], Any]:
    """Returns gradients clipped, unless `clipnorm` is None or 0, and their norm before that."""
    norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))
    if not clipnorm:
        return gradients, norm
    scale = clipnorm / ops.maximum(norm, clipnorm)
    return [gradient * scale for gradient in gradients], norm


@contextlib.contextmanager
def averaged_weights(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None
) -> Iterator[None]:
    """Puts the moving averages of the weights into the model, and takes them out again.

    Without averages (no optimizer, or no `ema_decay`) the model keeps its weights.
    """
    if optimizer is None or not optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    raw = [to_numpy(variable) for variable in variables]
    try:
        put_averages(model, optimizer)
        yield
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)


def put_averages(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Puts the moving averages of the weights, if there are any, into the model for good."""
    if optimizer.use_ema:
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(model.trainable_variables, averages, strict=True):
            variable.assign(to_numpy(average))

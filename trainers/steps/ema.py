"""Temporarily swaps the moving averages of the weights (EMA) into the model."""

import contextlib
from collections.abc import Iterator

import keras

from trainers.engines.arrays import to_numpy


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
    """Puts the moving averages of the weights into the model, for good.

    Without averages (no `ema_decay`) the model keeps its weights.
    """
    if optimizer.use_ema:
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(model.trainable_variables, averages, strict=True):
            variable.assign(to_numpy(average))

"""The moving averages of the weights in the place of the weights, for a while."""

import contextlib
from collections.abc import Iterator

import keras


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
    raw = [variable.numpy() for variable in variables]
    averages = optimizer._model_variables_moving_average
    try:
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average.numpy())
        yield
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)

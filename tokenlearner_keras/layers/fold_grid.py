"""Folds a sequence of positions into its grid."""

import math
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.checks import check_positive_integer
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class FoldGrid(keras.layers.Layer):
    """`(batch, prod(grid), channels)` becomes `(batch, *grid, channels)`, a mask likewise.

    A Reshape that knows it holds a position grid, so that `tk.resize_model` can change it.

    Args:
        grid: `(height, width)` or `(time, height, width)`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the grid is not made of positive integers or does not fit the
            number of positions.
    """

    def __init__(self, grid: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = tuple(check_positive_integer(size, "grid") for size in grid)
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        return ops.reshape(x, (-1, *self.grid, x.shape[-1]))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        del inputs
        return None if previous_mask is None else ops.reshape(previous_mask, (-1, *self.grid))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, positions, channels = input_shape
        if positions is not None and positions != math.prod(self.grid):
            raise ValueError(
                f"FoldGrid '{self.name}' folds {math.prod(self.grid)} positions into the grid "
                f"{self.grid}. Received shape {tuple(input_shape)}."
            )
        return (batch, *self.grid, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid}

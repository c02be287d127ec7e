"""Learned tokens and positions: the class token and the position table."""

import math
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import check_sizes


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class PositionEmbedding(ConfiguredLayer):
    """Adds one learned vector per position, `x + table`, to `(batch, positions, channels)`.

    Args:
        grid: `(height, width)` or `(time, height, width)`; the table is flat, in that order. The
            grid is kept so that the table can be resized to another one.
        num_prefix_tokens: Tokens in front of the grid (a class token) that have their own
            positions.

    Raises:
        ValueError: If the input has another number of tokens than `num_prefix_tokens + prod(grid)`.

    Reference:
        scenic `projects/baselines/vit.py`, `AddPositionEmbs`: normal with standard deviation 0.02.
    """

    _saved_arguments = ("grid", "num_prefix_tokens")

    def __init__(self, grid: tuple[int, ...], num_prefix_tokens: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = check_sizes(grid, "grid")
        self.num_prefix_tokens = int(num_prefix_tokens)

    @property
    def num_positions(self) -> int:
        """Length of the table."""
        return self.num_prefix_tokens + math.prod(self.grid)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if input_shape[1] is None:
            raise ValueError(
                f"PositionEmbedding '{self.name}' needs a known number of positions. Received "
                f"shape {tuple(input_shape)}. Give the model an input of fixed size."
            )
        self._check_shape(input_shape)
        self.table = self.add_weight(
            name="table",
            shape=(1, self.num_positions, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )

    def call(self, x: Any) -> Any:
        self._check_shape(x.shape)
        return x + self.table

    def _check_shape(self, shape: Any) -> None:
        if shape[1] not in (None, self.num_positions):
            raise ValueError(
                f"PositionEmbedding '{self.name}' has {self.num_positions} positions "
                f"(grid {self.grid}, {self.num_prefix_tokens} in front). Received "
                f"shape {tuple(shape)}. Give it inputs of the size it was built for, or take "
                "tk.resize_model(model, image_size) for a model of another size."
            )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        self._check_shape(input_shape)
        return input_shape


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class ClassToken(keras.layers.Layer):
    """Puts one learned token in front: `(B, N, C)` becomes `(B, 1 + N, C)`.

    Reference:
        scenic `projects/baselines/vit.py`, parameter `cls`, initially zero.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.token = self.add_weight(
            name="token", shape=(1, 1, input_shape[-1]), initializer="zeros"
        )

    def call(self, x: Any) -> Any:
        dimensions = ops.shape(x)
        token = ops.cast(self.token, x.dtype)
        token = ops.broadcast_to(token, (dimensions[0], 1, dimensions[-1]))
        return ops.concatenate([token, x], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, tokens, channels = input_shape
        return (batch, None if tokens is None else tokens + 1, channels)

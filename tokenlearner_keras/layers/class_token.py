"""A learned token in front of all others."""

from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE


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

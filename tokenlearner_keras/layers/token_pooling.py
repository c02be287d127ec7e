"""Reduces all tokens to one vector for the classifier."""

from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.checks import check_choice
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.precision import accumulation_dtype


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class TokenPooling(keras.layers.Layer):
    """Mean, maximum or sum over the tokens, in float32 under mixed precision.

    Args:
        mode: `"gap"` mean, `"gmp"` maximum, `"gsp"` sum, `"token"` the first token.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Input shape: `(batch, tokens, channels)`. Output shape: `(batch, channels)`.

    Raises:
        ValueError: If the mode is unknown.

    Reference:
        scenic `projects/token_learner/model.py`, `TokenLearnerViT`, `classifier`.
    """

    def __init__(self, mode: str = "gap", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mode = check_choice(mode, ("gap", "gmp", "gsp", "token"), "mode")

    def call(self, x: Any) -> Any:
        if self.mode == "token":
            return x[:, 0]
        reduce = {"gap": ops.mean, "gmp": ops.max, "gsp": ops.sum}[self.mode]
        wide = ops.cast(x, accumulation_dtype(self.compute_dtype))
        return ops.cast(reduce(wide, axis=1), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}

"""The vector transformer: attention with a weight of its own for every channel."""

from typing import Any

import keras

from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.checks import check_positive_integer
from tokenlearner_keras.layers.constants import LAYER_NORM_EPSILON
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class VectorTransformer(keras.layers.Layer):
    """`x + attention(norm(x))` with as many heads as channels, and no MLP.

    With heads of one channel the weight between two tokens is a vector, one number a
    channel, in place of one number a head: a tensor of tokens x tokens x channels, which is
    what the paper says of its vector attention. That tensor is held in float32, so the
    memory of training grows with the square of the tokens times the channels.

    Args:
        num_heads: Number of heads; must divide the channels. None: one a channel.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Input and output shape: `(batch, tokens, channels)`.

    Raises:
        ValueError: If `num_heads` is not positive or does not divide the channels.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, on video; the normalisation in front, the
        projection of the output and the biases are choices of this package.
    """

    def __init__(self, num_heads: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = (
            None if num_heads is None else check_positive_integer(num_heads, "num_heads")
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.norm = keras.layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name="norm"
        )
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"VectorTransformer '{self.name}' needs to know the number of channels. "
                f"Received shape {tuple(input_shape)}."
            )
        self.attention = MultiHeadAttention(
            self.num_heads or channels, dtype=self.dtype_policy, name="attention"
        )
        for layer in (self.norm, self.attention):
            layer.build(input_shape)

    def call(self, x: Any) -> Any:
        return x + self.attention(self.norm(x))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}

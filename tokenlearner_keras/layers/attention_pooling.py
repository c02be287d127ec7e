"""The attention-pooling head ("map") of big_vision."""

from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.checks import check_positive_integer
from tokenlearner_keras.layers.constants import LAYER_NORM_EPSILON
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.mlp import MlpBlock


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class AttentionPooling(keras.layers.Layer):
    """A learned probe attends to all tokens; a residual MLP block follows.

    Args:
        num_heads: Number of attention heads; must divide the channels.
        mlp_dim: Hidden width of the MLP.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Input shape: `(batch, tokens, channels)`. Output shape: `(batch, channels)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        big_vision `models/vit.py`, `MAPHead`; Lee et al. 2019, arXiv 1810.00825.
    """

    def __init__(self, num_heads: int, mlp_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_integer(num_heads, "num_heads")
        self.mlp_dim = check_positive_integer(mlp_dim, "mlp_dim")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        self.probe = self.add_weight(
            name="probe", shape=(1, 1, channels), initializer="glorot_uniform"
        )
        self.attention = MultiHeadAttention(
            self.num_heads, dtype=self.dtype_policy, name="attention"
        )
        self.norm = keras.layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name="norm"
        )
        self.mlp = MlpBlock(self.mlp_dim, dtype=self.dtype_policy, name="mlp")
        for layer in (self.attention, self.norm, self.mlp):
            layer.build((None, 1, channels))

    def call(self, x: Any) -> Any:
        dimensions = ops.shape(x)
        probe = ops.cast(self.probe, x.dtype)
        probe = ops.broadcast_to(probe, (dimensions[0], 1, dimensions[-1]))
        pooled = self.attention(probe, x)  # (B, 1, C)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
        }

"""The pre-norm encoder block of the Vision Transformer, with stochastic depth."""

from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_rate
from tokenlearner_keras.layers.common import layer_norm
from tokenlearner_keras.layers.common import rematerialize
from tokenlearner_keras.layers.dot_product_attention import ATTENTION_FORMS
from tokenlearner_keras.layers.mlp import MlpBlock

#: What training computes a second time in the backward pass: nothing, all, or all but the results
#: of the attention kernel.
REMAT_POLICIES = (False, True, "all_but_attention")


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class EncoderBlock(ConfiguredLayer):
    """`x += attention(norm(x))`, then `x += mlp(norm(x))`, of tokens `(batch, tokens, channels)`.

    Args:
        num_heads: Number of attention heads; must divide the channels.
        mlp_dim: Hidden width of the MLP.
        dropout: Rate in [0, 1) after the attention and inside the MLP.
        attention_dropout: Rate in [0, 1) on the attention weights.
        stochastic_depth: Rate in [0, 1) of dropping each residual branch.
        remat: Whether training computes the block's activations a second time in the backward pass:
            it keeps those of one block at a time, and takes the time of another forward pass.
            `"all_but_attention"` keeps the results of the TPU's attention kernel on JAX; where that
            does not run it is as True. Outputs and gradients are unchanged.
        attention: `"auto"`, `"plain"` or `"fused"`, as in `MultiHeadAttention`.

    Reference:
        Dosovitskiy et al. 2020, arXiv 2010.11929; scenic `projects/baselines/vit.py`,
        `Encoder1DBlock`.
    """

    _saved_arguments = (
        "num_heads",
        "mlp_dim",
        "dropout",
        "attention_dropout",
        "stochastic_depth",
        "remat",
    )  # and attention, the name of a layer inside

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        remat: bool | str = False,
        attention: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_integer(num_heads, "num_heads")
        self.mlp_dim = check_positive_integer(mlp_dim, "mlp_dim")
        self.dropout = check_rate(dropout, "dropout")
        self.attention_dropout = check_rate(attention_dropout, "attention_dropout")
        self.stochastic_depth = check_rate(stochastic_depth, "stochastic_depth")
        self.remat = check_choice(remat, REMAT_POLICIES, "remat")
        self.attention_form = check_choice(attention, ATTENTION_FORMS, "attention")
        if remat:
            self.autocast = False  # the layers inside cast the weights, each its own way

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        policy, channels = self.dtype_policy, input_shape[-1]
        self.attention_norm = layer_norm(self, "attention_norm", channels)
        self.attention = MultiHeadAttention(
            self.num_heads,
            self.attention_dropout,
            self.attention_form,
            **self._part("attention"),
        )
        self.mlp_norm = layer_norm(self, "mlp_norm", channels)
        self.mlp = MlpBlock(self.mlp_dim, dropout=self.dropout, **self._part("mlp"))
        for layer in (self.attention, self.mlp):
            layer.build(input_shape)
        self.residual_dropout = keras.layers.Dropout(
            self.dropout, dtype=policy, name="residual_dropout"
        )
        self.attention_depth = StochasticDepth(
            self.stochastic_depth, dtype=policy, name="attention_depth"
        )
        self.mlp_depth = StochasticDepth(self.stochastic_depth, dtype=policy, name="mlp_depth")
        for depth in (self.attention_depth, self.mlp_depth):
            depth.build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not self.remat:
            return self._encode(x, training)
        x = ops.cast(x, self.compute_dtype)
        if not training:
            return self._encode(x, training)
        keep_attention = self.remat == "all_but_attention"
        return rematerialize(
            [self], lambda inputs: self._encode(inputs, training), x, keep_attention
        )

    def _encode(self, x: Any, training: bool | None) -> Any:
        attended = self.attention(self.attention_norm(x), training=training)
        attended = self.residual_dropout(attended, training=training)
        x = x + self.attention_depth(attended, training=training)
        mixed = self.mlp(self.mlp_norm(x), training=training)
        return x + self.mlp_depth(mixed, training=training)

    def attention_weights(self, x: Any) -> Any:
        """Returns the weights of the self-attention, `(batch, num_heads, tokens, tokens)`."""
        x = ops.cast(x, self.compute_dtype)
        return self.attention.attention_weights(self.attention_norm(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "attention": self.attention_form}

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class StochasticDepth(ConfiguredLayer):
    """Zeroes whole examples with probability `rate` in training and divides the rest by `1 - rate`.

    The expectation is unchanged. The seed None draws one.

    Reference:
        Huang et al. 2016, arXiv 1603.09382; scenic `model_lib/layers/nn_layers.py`,
        `StochasticDepth`.
    """

    _saved_arguments = ("rate", "seed")

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = check_rate(rate, "rate")
        self.seed = seed
        self.supports_masking = True
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training or self.rate == 0:
            return x
        noise_shape = (ops.shape(x)[0], *([1] * (len(x.shape) - 1)))
        return keras.random.dropout(x, self.rate, noise_shape=noise_shape, seed=self.seed_generator)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

"""Multi-head attention of the encoder, with a float32 softmax."""

from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_rate
from tokenlearner_keras.layers.dot_product_attention import ATTENTION_FORMS
from tokenlearner_keras.layers.dot_product_attention import attention_weights
from tokenlearner_keras.layers.dot_product_attention import dot_product_attention


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class MultiHeadAttention(ConfiguredLayer):
    """Scaled dot-product attention with `channels / num_heads` wide heads.

    `keras.layers.MultiHeadAttention` runs its softmax in the compute dtype; under a mixed policy
    that is half precision. Here the softmax is float32. The projections are plain Dense layers, so
    LoRA and quantisation apply to them.

    Args:
        num_heads: Number of heads; must divide the channels.
        dropout: Rate in [0, 1) on the attention weights, element by element.
        attention: `"auto"` computes attention in the form that is best for backend and sizes,
            `"plain"` always by the matrix of all weights, `"fused"` by a TPU's kernel also for few
            tokens; see `dot_product_attention`. Dropout in training, and `attend`, need the matrix.

    Call arguments:
        query: `(batch, queries, channels)`, the shape of the output.
        value: `(batch, keys, channels)`, keys and values. None attends to `query`.

    Reference:
        Flax `MultiHeadDotProductAttention` as in scenic `projects/baselines/vit.py`: all
        projections biased, kernels Glorot-uniform, biases zero.
    """

    _saved_arguments = ("num_heads", "dropout", "attention")

    def __init__(
        self, num_heads: int, dropout: float = 0.0, attention: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_integer(num_heads, "num_heads")
        self.dropout = check_rate(dropout, "dropout")
        self.attention = check_choice(attention, ATTENTION_FORMS, "attention")

    def build(
        self,
        query_shape: tuple[int | None, ...],
        value_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        del value_shape
        channels = query_shape[-1]
        if channels is None or channels % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the channels. Received num_heads="
                f"{self.num_heads} for {channels} channels (shape {tuple(query_shape)})."
            )
        self.head_dim = channels // self.num_heads
        for name in ("query", "key", "value", "output"):
            layer = keras.layers.Dense(
                channels, kernel_initializer="glorot_uniform", **self._part(name)
            )
            layer.build((None, None, channels))
            setattr(self, f"{name}_layer", layer)
        self.attention_dropout = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="attention_dropout"
        )

    def call(self, query: Any, value: Any = None, training: bool | None = None) -> Any:
        if training and self.dropout:
            return self.attend(query, value, training=training)[0]
        queries, keys, values = self._project(query, value)
        attended = dot_product_attention(queries, keys, values, self.attention)
        return self._output(attended, query)

    def attend(
        self,
        query: Any,
        value: Any = None,
        key_mask: Any = None,
        training: bool | None = None,
    ) -> tuple[Any, Any]:
        """Returns what `call` does and the weights `(batch, num_heads, queries, keys)`.

        The weights are those before dropout, float32 (float64 in a float64 layer). Where the
        boolean `key_mask`, `(batch, keys)`, is False the weight is 0; if it is False for all keys,
        all have the same weight.
        """
        queries, keys, values = self._project(query, value)
        weights = attention_weights(queries, keys, key_mask)
        kept = ops.cast(weights, self.compute_dtype)
        kept = self.attention_dropout(kept, training=training)
        return self._output(ops.matmul(kept, values), query), weights

    def attention_weights(self, query: Any, value: Any = None) -> Any:
        """Returns the weights that `attend` returns, without a mask."""
        queries, keys, _ = self._project(query, value)
        return attention_weights(queries, keys)

    def _project(self, query: Any, value: Any) -> tuple[Any, Any, Any]:
        """Returns scaled queries (B, heads, N, dim), keys and values (B, heads, M, dim)."""
        value = query if value is None else value
        queries = self._heads(self.query_layer, query)
        keys = self._heads(self.key_layer, value)
        values = self._heads(self.value_layer, value)
        # The queries are scaled, not the logits: fewer numbers, and no overflow.
        return queries * self.head_dim**-0.5, keys, values

    def _output(self, attended: Any, query: Any) -> Any:
        attended = ops.transpose(attended, (0, 2, 1, 3))
        return self.output_layer(ops.reshape(attended, ops.shape(query)))

    def _heads(self, projection: Any, x: Any) -> Any:
        # The sizes of the input, not of the projection: where they are unknown, tf2onnx merges
        # the projection's reshape with this one and then takes them from before the first.
        sizes = (*ops.shape(x)[:-1], self.num_heads, self.head_dim)
        return ops.transpose(ops.reshape(projection(x), sizes), (0, 2, 1, 3))

    def compute_output_shape(
        self,
        query_shape: tuple[int | None, ...],
        value_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        del value_shape
        return query_shape

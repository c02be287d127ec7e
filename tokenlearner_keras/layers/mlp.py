"""The two-layer MLP that the encoder, TokenLearner v1.1 and TokenFuser share."""

import math
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_rate
from tokenlearner_keras.layers.common import is_half_precision
from tokenlearner_keras.layers.common import is_quantized
from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.layers.common import plain_unless_differentiated

_TWICE_ROOT_OF_2_OVER_PI = 2 * math.sqrt(2 / math.pi)


def gelu(x: Any) -> Any:
    """Tanh-approximate GELU, which the reference uses everywhere.

    The string ``"gelu"`` in Keras means the exact form, which differs by 4.7e-4.
    """
    if keras.backend.backend() == "torch":
        from torch.compiler import is_compiling

        if is_compiling():
            # The same function, as 1 + tanh(u) = 2 sigmoid(2u): tanh is slow in programs that
            # PyTorch compiles for CPUs.
            return x * ops.sigmoid(_TWICE_ROOT_OF_2_OVER_PI * (x + 0.044715 * x * x * x))
    return ops.gelu(x, approximate=True)


def normalized(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Returns a LayerNorm over the channels that keeps its digits far from zero."""
    centred, scale = _centred(x, epsilon)
    return centred * scale * gamma + beta


def normalized_matmul(x: Any, gamma: Any, beta: Any, epsilon: float, kernel: Any) -> Any:
    """Returns `normalized(x, gamma, beta, epsilon) @ kernel` in a form with cheap gradients.

    Where the kernel `(channels, columns)` has few columns and the input many channels, the
    normalisation is a large part of the backward pass. So its scale goes into the kernel, its
    offset becomes a row that is added, and the division of a position is applied to the product.
    Only the centred input is computed: without centring, an input far from zero would lose bits.

    For full precision only: half precision is too coarse for the mean and the deviation.
    """
    centred, scale = _centred(x, epsilon)
    product = ops.matmul(centred, ops.multiply(ops.expand_dims(gamma, -1), kernel))  # (..., K)
    offset = ops.matmul(ops.expand_dims(beta, 0), kernel)[0]  # (K,)
    return product * scale + offset


def _centred(x: Any, epsilon: float) -> tuple[Any, Any]:
    """Returns the deviations from the mean, (..., C), and what scales them, (..., 1)."""
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    return centred, ops.rsqrt(variance + epsilon)


def first_outputs(dense: keras.layers.Dense, x: Any, count: int | None) -> Any:
    """Returns the first `count` outputs of a linear Dense layer, all for None."""
    if count is None:
        return dense(x)
    if is_quantized(dense):
        return dense(x)[..., :count]
    x = ops.matmul(x, ops.cast(dense.kernel[:, :count], x.dtype))
    return x if dense.bias is None else x + ops.cast(dense.bias[:count], x.dtype)


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class MlpBlock(ConfiguredLayer):
    """Dense, tanh GELU, dropout, Dense, dropout, over the last axis.

    Args:
        hidden_dim: Width of the hidden layer.
        output_dim: Width of the output. None keeps the input's width.
        dropout: Rate in [0, 1) after the hidden layer and after the output.

    Reference:
        scenic `model_lib/layers/attention_layers.py`, `MlpBlock`: kernels
        Glorot-uniform, biases normal with standard deviation 1e-6.
    """

    _saved_arguments = ("hidden_dim", "output_dim", "dropout")

    def __init__(
        self,
        hidden_dim: int,
        output_dim: int | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = check_positive_integer(hidden_dim, "hidden_dim")
        self.output_dim = optional(check_positive_integer, output_dim, "output_dim")
        self.dropout = check_rate(dropout, "dropout")
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        output_dim = self.output_dim or input_shape[-1]
        self.hidden_layer = self._dense(self.hidden_dim, "hidden")
        self.hidden_layer.build(input_shape)
        self.output_layer = self._dense(output_dim, "output")
        self.output_layer.build((*input_shape[:-1], self.hidden_dim))
        self.hidden_dropout = self._dropout("hidden_dropout")
        self.output_dropout = self._dropout("output_dropout")

    def _dense(self, units: int | None, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            kernel_initializer="glorot_uniform",
            bias_initializer=keras.initializers.RandomNormal(stddev=1e-6),
            **self._part(name),
        )

    def _dropout(self, name: str) -> keras.layers.Dropout:
        return keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name=name)

    def call(self, x: Any, training: bool | None = None, num_outputs: int | None = None) -> Any:
        return self._from_hidden(self.hidden_layer(x), training, num_outputs)

    def after_norm(
        self,
        norm: Any,
        x: Any,
        training: bool | None = None,
        num_outputs: int | None = None,
    ) -> Any:
        """Returns `self(norm(x))`, faster where the hidden layer is narrow.

        With `num_outputs` only so many of the outputs are computed, the first.
        """

        def plain(x: Any, gamma: Any, beta: Any, kernel: Any) -> Any:
            return ops.matmul(normalized(x, gamma, beta, norm.epsilon), kernel)

        def faster(x: Any, gamma: Any, beta: Any, kernel: Any) -> Any:
            return normalized_matmul(x, gamma, beta, norm.epsilon, kernel)

        hidden = self.hidden_layer
        if is_quantized(hidden) or is_half_precision(self.compute_dtype):
            return self(norm(x), training=training, num_outputs=num_outputs)
        arrays = (x, norm.gamma, norm.beta, hidden.kernel)
        product = plain_unless_differentiated(plain, faster, *arrays)
        return self._from_hidden(product + hidden.bias, training, num_outputs)

    def _from_hidden(self, x: Any, training: bool | None, num_outputs: int | None) -> Any:
        x = self.hidden_dropout(gelu(x), training=training)
        x = first_outputs(self.output_layer, x, num_outputs)
        return self.output_dropout(x, training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.output_dim or input_shape[-1])

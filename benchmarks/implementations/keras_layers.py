"""Layers written with Keras, on the backend that KERAS_BACKEND says: ours and others'."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

import tokenlearner_keras as tk
from benchmarks.implementations.execution import layer_implementation
from benchmarks.implementations.problem import BOTTLENECK_DIM
from benchmarks.implementations.problem import NUM_HEADS
from benchmarks.implementations.problem import problem
from benchmarks.worker import Implementation
from tokenlearner_keras.layers import dot_product_attention as forms


def ours(
    layer: str, shape: list[int], num_tokens: int, direction: str, mode: str
) -> Implementation:
    parameters, inputs, cotangent = problem(layer, shape, num_tokens)
    makers: dict[str, Callable[[], keras.layers.Layer]] = {
        "v1.0": lambda: tk.TokenLearner(num_tokens, pooling="mean"),
        "v1.1": lambda: tk.TokenLearnerV11(num_tokens, BOTTLENECK_DIM),
        "mha": lambda: tk.TokenLearnerMHA(num_tokens, NUM_HEADS),
        "fuser": lambda: tk.TokenFuser(BOTTLENECK_DIM),
    }
    built = makers[layer]()
    built(*inputs.values())
    tk.load_reference_params(built, parameters)
    return layer_implementation(built, inputs, cotangent, direction, mode)


def keras_io(
    layer: str, shape: list[int], num_tokens: int, direction: str, mode: str
) -> Implementation:
    """Returns v1.0 as the Keras example of 2021 formulates it."""
    parameters, inputs, cotangent = problem(layer, shape, num_tokens)
    image = keras.Input(shape[1:])
    model = keras.Model(image, _multiplied_and_averaged(image, num_tokens))
    model.set_weights(list(parameters.values()))
    return layer_implementation(model, inputs, cotangent, direction, mode)


def _multiplied_and_averaged(x: Any, num_tokens: int) -> Any:
    """Every position times every weight, (batch, tokens, positions, channels), then a mean."""
    maps = keras.layers.LayerNormalization(epsilon=1e-6)(x)
    for activation in (_gelu, _gelu, _gelu, "sigmoid"):
        maps = keras.layers.Conv2D(
            num_tokens, 3, padding="same", use_bias=False, activation=activation
        )(maps)
    maps = ops.transpose(ops.reshape(maps, (-1, x.shape[1] * x.shape[2], num_tokens)), (0, 2, 1))
    positions = ops.reshape(x, (-1, 1, x.shape[1] * x.shape[2], x.shape[3]))
    return ops.mean(ops.expand_dims(maps, -1) * positions, axis=2)


def _gelu(x: Any) -> Any:
    return ops.gelu(x, approximate=True)


def k3im(
    layer: str, shape: list[int], num_tokens: int, direction: str, mode: str
) -> Implementation:
    """Returns k3im's function, whose LayerNorm has another epsilon (1e-3)."""
    from k3im.token_learner import TokenLearner as k3im_token_learner

    parameters, inputs, cotangent = problem(layer, shape, num_tokens)
    image = keras.Input(shape[1:])
    model = keras.Model(image, k3im_token_learner(image, num_tokens))
    model.set_weights(list(parameters.values()))
    return layer_implementation(model, inputs, cotangent, direction, mode, "k3im")


def attention(shape: list[int], form: str, direction: str, mode: str) -> Implementation:
    """Returns attention alone, for queries, keys and values of one shape."""
    makers = {
        "matrix": lambda *inputs: forms.plain_attention(*inputs)[0],
        "chunks": forms.attention_in_chunks,
        "scaled_dot_product_attention": forms.dot_product_attention,  # on PyTorch
    }
    generator = np.random.default_rng(0)
    arrays = generator.standard_normal((4, *shape)).astype(np.float32)
    arrays[0] *= shape[-1] ** -0.5
    layer = Attention(makers[form])
    layer.built = True
    inputs = dict(zip(("queries", "keys", "values"), arrays[:3], strict=True))
    return layer_implementation(layer, inputs, arrays[3], direction, mode)


class Attention(keras.layers.Layer):
    def __init__(self, attend: Callable[..., Any]) -> None:
        super().__init__()
        self._attend = attend

    def call(self, queries: Any, keys: Any, values: Any) -> Any:
        return self._attend(queries, keys, values)

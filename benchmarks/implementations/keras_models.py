"""Whole models written with Keras, on the backend that KERAS_BACKEND says."""

from typing import Any

import keras
import numpy as np
from keras import ops

import tokenlearner_keras as tk
from benchmarks.implementations.execution import model_implementation
from benchmarks.implementations.problem import NUM_CLASSES
from benchmarks.implementations.problem import SIZES
from benchmarks.worker import Implementation


def ours(name: str, input_shape: list[int], direction: str, mode: str) -> Implementation:
    """Returns a model by name, of images or videos."""
    return _implementation(_ours(name, input_shape), input_shape, direction, mode)


def _ours(name: str, input_shape: list[int]) -> keras.Model:
    frames = {"num_frames": input_shape[1]} if len(input_shape) == 5 else {}
    return tk.create_model(name, num_classes=NUM_CLASSES, image_size=input_shape[-2], **frames)


def token_merging(
    name: str, input_shape: list[int], count: int, direction: str, mode: str
) -> Implementation:
    """Returns a plain ViT with `count` tokens merged away after every block."""
    plain = _ours(name, input_shape)
    x = inputs = keras.Input(tuple(input_shape[1:]))
    for layer in plain.layers[1:]:
        x = layer(x)
        if layer.name.startswith("encoder_block"):
            x = TokenMerging(count)(x)
    return _implementation(keras.Model(inputs, x), input_shape, direction, mode)


class TokenMerging(keras.layers.Layer):
    """Merges the most similar tokens in the manner of ToMe (Bolya et al. 2022, section 3).

    Every other token looks for the most similar one among the rest; the `count` pairs with the
    highest similarity become their mean. Unlike in the paper (arXiv 2210.09461) it stands between
    blocks, so it compares tokens instead of attention keys, and neither mean nor attention knows
    how many tokens have gone into one before.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def call(self, x: Any) -> Any:
        sources, targets = x[:, ::2], x[:, 1::2]  # (B, N/2, C) each
        similarity = ops.matmul(_unit(sources), ops.transpose(_unit(targets), (0, 2, 1)))
        order = ops.argsort(-ops.max(similarity, axis=-1), axis=-1)  # (B, N/2)
        merged = ops.expand_dims(order[:, : self.count], -1)  # (B, count, 1)
        kept = ops.expand_dims(order[:, self.count :], -1)
        nearest = ops.expand_dims(ops.argmax(similarity, axis=-1), -1)  # (B, N/2, 1)
        goals = ops.take_along_axis(nearest, merged, axis=1)[..., 0]  # (B, count)
        shares = ops.one_hot(goals, targets.shape[1], dtype=x.dtype)  # (B, count, N/2)
        shares = ops.transpose(shares, (0, 2, 1))
        total = targets + ops.matmul(shares, ops.take_along_axis(sources, merged, axis=1))
        number = 1 + ops.sum(shares, axis=-1, keepdims=True)
        return ops.concatenate([ops.take_along_axis(sources, kept, axis=1), total / number], axis=1)


def _unit(x: Any) -> Any:
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-6)


def keras_hub(size: str, input_shape: list[int], direction: str, mode: str) -> Implementation:
    """Returns keras-hub's ViT without a class token, averaged over the positions."""
    import keras_hub

    width, heads, mlp_dim = SIZES[size]
    backbone = keras_hub.models.ViTBackbone(
        image_shape=tuple(input_shape[1:]),
        patch_size=16,
        num_layers=12,
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=mlp_dim,
        use_class_token=False,
    )
    x = keras.layers.GlobalAveragePooling1D()(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(NUM_CLASSES)(x))
    return _implementation(model, input_shape, direction, mode, "keras-hub")


def k3im(
    size: str, input_shape: list[int], tokens: int, direction: str, mode: str
) -> Implementation:
    """Returns k3im's ViT, with its TokenLearner after the middle or without (0).

    Each of its heads is as wide as the model, whatever `dim_head` says.
    """
    from k3im.token_learner import ViTokenLearner

    width, heads, mlp_dim = SIZES[size]
    model = ViTokenLearner(
        input_shape[1], 16, NUM_CLASSES, width, 12, heads, mlp_dim, tokens,
        use_token_learner=tokens > 0,
    )  # fmt: skip
    return _implementation(model, input_shape, direction, mode, "k3im")


def _implementation(
    model: keras.Model,
    input_shape: list[int],
    direction: str,
    mode: str,
    *packages: str,
) -> Implementation:
    generator = np.random.default_rng(0)
    # Small enough that the outputs stay of the size of the weights, on any backend the same.
    model.set_weights(
        [
            w if "seed" in v.path else generator.normal(scale=0.02, size=w.shape)
            for v, w in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    images = generator.normal(size=input_shape).astype("float32")
    labels = generator.integers(NUM_CLASSES, size=input_shape[0])
    return model_implementation(model, images, labels, direction, mode, *packages)

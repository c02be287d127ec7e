"""Whole models written with Keras, on the backend that KERAS_BACKEND says."""

from typing import Any

import keras
import numpy as np

import tokenlearner_keras as tk
from benchmarks.implementations.execution import model_implementation
from benchmarks.implementations.problem import NUM_CLASSES
from benchmarks.implementations.problem import SIZES
from benchmarks.worker import Implementation


def ours(name: str, input_shape: list[int], direction: str, mode: str) -> Implementation:
    """Returns a model by name, of images or videos."""
    return _implementation(_ours(name, input_shape), input_shape, direction, mode)


def configured(
    name: str, fields: dict[str, Any], batch_size: int, direction: str, mode: str
) -> Implementation:
    """Returns a model by name, with fields of its configuration."""
    model = tk.create_model(name, **fields)
    return _implementation(model, [batch_size, *model.input_shape[1:]], direction, mode)


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
            x = tk.TokenMerging(count)(x)
    return _implementation(keras.Model(inputs, x), input_shape, direction, mode)


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

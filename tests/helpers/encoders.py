"""An encoder of plain Keras layers, to put a TokenLearner into, and a look at its graph."""

from typing import Any

import keras
from keras import layers

from tokenlearner_keras.graph import graph_calls


def encoder(positions: int | None = 12, pool: bool = True) -> keras.Model:
    """Returns a model of sequences (B, positions, 8) with two blocks.

    Args:
        positions: Length of the sequences; None: any.
        pool: Whether the mean over the positions is classified, not each position.
    """
    inputs = keras.Input((positions, 8), name="sequence")
    x = _block(_block(inputs, 0), 1)
    if pool:
        x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="encoder")


def _block(x: Any, number: int) -> Any:
    """A pre-norm encoder block."""
    y = layers.LayerNormalization(name=f"norm_{number}")(x)
    y = layers.MultiHeadAttention(2, 4, name=f"attention_{number}")(y, y)
    x = layers.Add(name=f"shortcut_{number}")([x, y])
    y = layers.Dense(8, "gelu", name=f"mlp_{number}")(x)
    return x + y


def input_of(model: keras.Model, name: str) -> Any:
    """Returns the tensor that feeds a layer in this model; `layer.input` is the first model's."""
    (node,) = [node for node in graph_calls(model) if node.operation.name == name]
    return node.input_tensors[0]

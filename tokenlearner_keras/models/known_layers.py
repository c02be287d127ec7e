"""What insertion knows about layers: position grids, and containers that can be opened.

Layers of other packages are told by the name of their class and module, so that nothing of
theirs is imported.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras

from tokenlearner_keras.layers.position_embedding import PositionEmbedding

_KERAS_HUB_VIT = "keras_hub.src.models.vit.vit_layers"


class TokenLayout(NamedTuple):
    """How a sequence of tokens is laid out.

    Attributes:
        num_prefix_tokens: Tokens in front of the grid.
        grid: `(height, width)` or `(time, height, width)`; None if there is none.
    """

    num_prefix_tokens: int = 0
    grid: tuple[int, ...] | None = None


def known_layout(operation: Any) -> TokenLayout | None:
    """Returns the layout that a layer gives its output; None for most layers."""
    if isinstance(operation, PositionEmbedding):
        return TokenLayout(operation.num_prefix_tokens, operation.grid)
    if _is(operation, _KERAS_HUB_VIT, "ViTPatchingAndEmbedding"):
        sizes = zip(operation.image_size, operation.patch_size, strict=True)
        grid = tuple(size // patch for size, patch in sizes)
        return TokenLayout(int(operation.use_class_token), grid)
    return None


def inner_layers(operation: Any) -> list[keras.layers.Layer]:
    """Returns the layers of a container that calls them one after the other; most have none."""
    for (module, name), layers_of in _CONTAINERS.items():
        if _is(operation, module, name):
            layers = layers_of(operation)
            # Another release may have a container of more parts: that one stays closed.
            if sum(len(layer.weights) for layer in layers) == len(operation.weights):
                return layers
    return []


def opened(container: keras.layers.Layer, x: keras.KerasTensor) -> keras.Model:
    """Returns a functional model of a container's own layers, with its name and weights."""
    inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype, name=f"{container.name}_input")
    outputs = inputs
    for layer in inner_layers(container):
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=container.name)


def _is(operation: Any, module: str, name: str) -> bool:
    return (type(operation).__module__, type(operation).__name__) == (module, name)


_CONTAINERS: dict[tuple[str, str], Callable[[Any], list[keras.layers.Layer]]] = {
    (_KERAS_HUB_VIT, "ViTEncoder"): lambda encoder: [
        encoder.dropout,
        *encoder.encoder_layers,
        encoder.layer_norm,
    ],
}

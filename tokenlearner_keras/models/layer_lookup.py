"""Finds a layer's one call in a model by its name or path."""

import difflib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import call_arguments
from tokenlearner_keras.graph import graph_calls
from tokenlearner_keras.graph import nested_graph
from tokenlearner_keras.graph import symbolic_tensors
from tokenlearner_keras.layers.position_embedding import PositionEmbedding

Path = tuple[str, ...]


def layer_paths(graph: keras.Model, prefix: Path = ()) -> Iterator[Path]:
    """Yields the path of every layer and operation, through layers that are models."""
    for operation in graph.operations:
        path = (*prefix, operation.name)
        yield path
        inner = nested_graph(operation)
        if inner is not None:
            yield from layer_paths(inner, path)
        else:
            yield from ((*path, layer.name) for layer in inner_layers(operation))


def find_layer(graph: keras.Model, before: str) -> Path:
    """Returns the path of a layer given by its path, or by its name if that is unique.

    ValueError says which are near if there is none, and which there are if there are several.
    """
    paths = list(layer_paths(graph))
    exact = [path for path in paths if "/".join(path) == before]
    found = exact or [path for path in paths if path[-1] == before]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(repr("/".join(path)) for path in found)
        raise ValueError(
            f"`before` must name one layer. {before!r} is the name of several: pass a path, one "
            f"of {listed}."
        )
    names = [name for path in paths for name in (path[-1], "/".join(path))]
    near = difflib.get_close_matches(str(before), dict.fromkeys(names), n=3)
    hint = f" Near: {', '.join(near)}." if near else ""
    raise ValueError(
        f"`before` must be the name of a layer of the model. Received: {before!r}.{hint} "
        "model.summary(expand_nested=True) lists the layers."
    )


def only_call(graph: keras.Model, name: str) -> Node:
    """Returns the call of the layer of that name; raises ValueError unless there is one."""
    nodes = [node for node in graph_calls(graph) if node.operation.name == name]
    if len(nodes) == 1:
        return nodes[0]
    if not nodes:
        raise ValueError(
            f"`before` names {name!r}, an input of the model, which nothing comes before. Name "
            "the layer that takes it."
        )
    raise ValueError(
        f"`before` must name a layer that is called once. {name!r} is called {len(nodes)} times "
        "in this model. Name another layer on the path where the tokens shall begin."
    )


def only_tensor(node: Node) -> keras.KerasTensor:
    """Returns the tensor that a call takes; raises ValueError unless there is one."""
    tensors = {id(tensor): tensor for tensor in symbolic_tensors(call_arguments(node))}
    if len(tensors) != 1:
        raise ValueError(
            f"`before` must name a layer that is called on one tensor. {node.operation.name!r} "
            f"is called on {len(tensors)}. Name the layer before or after it."
        )
    return next(iter(tensors.values()))


_KERAS_HUB_VIT = "keras_hub.src.models.vit.vit_layers"


class TokenLayout(NamedTuple):
    """How a sequence is laid out: tokens in front, then a grid (None if there is none)."""

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

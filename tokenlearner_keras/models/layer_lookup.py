"""Finds a layer's one call in a model by its name or path."""

import difflib
import math
import re
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
from tokenlearner_keras.layer_graph import held_layers
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
            yield from ((*path, layer.name) for layer in held_layers(operation))


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
        f"`before` must be the name of a layer of the model. Received: {before!r}.{hint} Found: "
        f"{_listed(paths)}."
    )


def _listed(paths: list[Path], limit: int = 40) -> str:
    """Returns paths in one line, from the middle only their number if there are many."""
    names = ["/".join(path) for path in paths]
    left_out = len(names) - limit
    if left_out > 0:
        half = limit // 2
        names = [*names[:half], f"({left_out} more)", *names[-half:]]
    return ", ".join(names)


def path_again(model: keras.Model, path: Path, index: int) -> Path:
    """Returns the path of a layer in a model built again from its configuration.

    Keras may number names otherwise, and keras_hub's DINOv2 begins those of a model that was built
    without a name with the name that Keras then gave it.
    """
    paths = list(layer_paths(model))
    found = paths[index] if index < len(paths) else ()
    pairs = list(zip(_unnumbered(found), _unnumbered(path), strict=False))
    if len(found) != len(path) or not all(new.endswith(old) for new, old in pairs):
        raise ValueError(
            f"The TokenLearner was before {'/'.join(path)!r} in {model.name!r}, but its "
            "configuration now makes a model of other layers. Load it with the release of its "
            "package that saved it."
        )
    return found


def _unnumbered(path: Path) -> list[str]:
    return [re.sub(r"_\d+$", "", name) for name in path]


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
            f"is called on {len(tensors)}. Name the layer before or after it. Blocks that take a "
            "table of positions for the old number of tokens, as DINOv3's, cannot take learned "
            "ones, which can only follow them."
        )
    return next(iter(tensors.values()))


class TokenLayout(NamedTuple):
    """How a sequence is laid out: tokens in front, then a grid (None if there is none)."""

    num_prefix_tokens: int = 0
    grid: tuple[int, ...] | None = None


def known_layout(node: Node) -> TokenLayout | None:
    """Returns the layout that a call gives its output; None for most layers."""
    layer = node.operation
    if isinstance(layer, PositionEmbedding):
        return TokenLayout(layer.num_prefix_tokens, layer.grid)
    name = f"{type(layer).__module__}.{type(layer).__name__}"
    if name in _PREFIXES:
        return TokenLayout(_PREFIXES[name](layer))
    if name in _GRIDS:
        grid = _GRIDS[name](layer)
        return TokenLayout(node.outputs[0].shape[1] - math.prod(grid), grid)
    return None


def _patches(image_size: tuple[int, int], patch_size: int | tuple[int, int]) -> tuple[int, ...]:
    if isinstance(patch_size, int):
        patch_size = (patch_size, patch_size)
    return tuple(size // patch for size, patch in zip(image_size, patch_size, strict=True))


# Layers of other packages, identified by name so that no package is imported. What is longer than
# the grid are class and register tokens in front.
_GRIDS: dict[str, Callable[[Any], tuple[int, ...]]] = {
    "keras_hub.src.models.vit.vit_layers.ViTPatchingAndEmbedding": (
        lambda layer: _patches(layer.image_size, layer.patch_size)
    ),
    "keras_hub.src.models.deit.deit_layers.DeiTEmbeddings": (
        lambda layer: _patches(layer.image_size, layer.patch_size)
    ),
    "keras_hub.src.models.dinov2.dinov2_layers.DINOV2Embedding": (
        lambda layer: _patches(layer.image_shape, layer.patch_size)
    ),
    "zeromodels.models.vit.vit_layers.ViTAddPositionEmbs": (
        lambda layer: (layer.grid_h, layer.grid_w)
    ),
}
# DINOv3 has its positions in the attention; the layers that know the tokens know no grid.
_PREFIXES: dict[str, Callable[[Any], int]] = {
    "keras_hub.src.models.dinov3.dinov3_layers.DINOV3Embedding": (
        lambda layer: 1 + layer.num_register_tokens
    ),
    "zeromodels.models.dino_v3.dino_v3_layers.DinoV3Attention": (
        lambda layer: layer.num_prefix_tokens
    ),
}

"""Puts a TokenLearner into any functional model, with the model's own weights."""

import difflib
import math
import numbers
import warnings
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras

from tokenlearner_keras.cost import functional_graph
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.checks import check_positive_integer
from tokenlearner_keras.layers.fold_grid import FoldGrid
from tokenlearner_keras.layers.sequence_part import SequencePart
from tokenlearner_keras.layers.token_learner_v11 import TokenLearnerV11
from tokenlearner_keras.models.checked_call import checked_call
from tokenlearner_keras.models.checked_call import reason_of
from tokenlearner_keras.models.graph import Node
from tokenlearner_keras.models.graph import call_arguments
from tokenlearner_keras.models.graph import calls_undone_on_error
from tokenlearner_keras.models.graph import graph_calls
from tokenlearner_keras.models.graph import nested_graph
from tokenlearner_keras.models.graph import rewired_outputs
from tokenlearner_keras.models.graph import symbolic_tensors
from tokenlearner_keras.models.known_layers import Positions
from tokenlearner_keras.models.known_layers import inner_layers
from tokenlearner_keras.models.known_layers import known_positions
from tokenlearner_keras.models.known_layers import opened
from tokenlearner_keras.models.vision_transformer_model import VisionTransformer

_RANKS = (3, 4, 5)


def insert_token_learner(
    model: keras.Model,
    before: str,
    layer: BaseTokenLearner | None = None,
    *,
    grid: tuple[int, ...] | None = None,
    num_prefix_tokens: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Returns a model that learns tokens just before one of a model's layers.

    The tensor that feeds the layer `before` becomes tokens for everything that takes it,
    so that in a block with a shortcut the shortcut carries the tokens, too: name the
    block, or the first layer of its (pre-norm) branch. All layers are those of the given
    model. It stays as it is, and training one of the two models trains the other.

    Fine-tune the result. The weights after the TokenLearner were trained on many
    positions and meet tokens that are not trained at all. The authors tried pre-trained
    layers around a TokenLearner and found that they did not help by themselves.

    Args:
        model: A functional model, or a Sequential one whose input is known; images are
            channels last. `keras_hub` models with a ViTBackbone are understood.
        before: Name of the layer, called once and on one tensor: a sequence `(batch,
            positions, channels)`, images `(batch, height, width, channels)` or videos
            `(batch, time, height, width, channels)`. A layer of a model that is itself
            a layer of this one, or of keras_hub's ViTEncoder, is found by its name or,
            if that is not unique, by its path, such as `"backbone/block_3"`.
        layer: A TokenLearner layer that no model uses yet; its dtype policy stays its
            own. None: `TokenLearnerV11(8)`.
        grid: For sequences: `(height, width)`, or `(time, height, width)` for tokens of
            every frame, which then follow each other in one sequence. None takes the
            grid of the position embedding that the sequence comes from, if it fits.
        num_prefix_tokens: For sequences: tokens in front (a class token) that bypass the
            TokenLearner and stay in front. None finds it out as for `grid`, else 0.
        name: Name of the new model. None: that of the given one.

    Returns:
        A functional model, not compiled. `tk.attention_maps` shows its maps; a
        preprocessor or training step that a subclass adds to the model is not carried
        over.

    Raises:
        ValueError: If the layer is unknown, called several times or on several tensors, or
            already in use; if the grid does not fit; or if a later layer cannot take the
            tokens (it is named). The given model is then as before.

    Example:
        >>> model = tk.create_model("vit_s16", num_classes=10)
        >>> fast = tk.insert_token_learner(model, "encoder_block_6", tk.TokenLearnerV11(16))
        >>> fast.get_layer("encoder_block_6").output.shape, fast.count_params()

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, section 2; on pre-trained layers around it
        https://github.com/google-research/scenic/issues/112.
    """
    functional_graph(model, "insert_token_learner")
    path = _find(model, before)
    if layer is None:
        layer = TokenLearnerV11(8, name=_unused_name(model))
    _check_layer(layer)
    request = _Request(layer, "/".join(path), _checked_grid(grid), _checked(num_prefix_tokens))
    return _insert(model, path, request, known=None, name=name or model.name)


class _Request(NamedTuple):
    """What the caller asked for."""

    layer: BaseTokenLearner
    before: str
    grid: tuple[int, ...] | None
    num_prefix_tokens: int | None


def _insert(
    model: keras.Model,
    path: tuple[str, ...],
    request: _Request,
    known: Positions | None,
    name: str,
) -> keras.Model:
    """Inserts at a path: into the model itself, or into a model that is one of its layers."""
    graph = functional_graph(model, "insert_token_learner")
    node = _only_call(graph, path[0])
    source = _only_tensor(node)
    known = _positions_before(source) or known
    within = inner_layers(node.operation)
    with calls_undone_on_error([*graph.operations, *within, request.layer]):
        tensors, operations = {}, {}
        if len(path) == 1:
            _check_name(graph, request.layer)
            tensors = {id(source): _learn(source, known, request)}
        else:
            inner = opened(node.operation, source) if within else node.operation
            inner = _insert(inner, path[1:], request, known, inner.name)
            operations = {id(node.operation): inner}
        outputs = rewired_outputs(graph, checked_call, tensors, operations)
        kind = VisionTransformer if isinstance(model, VisionTransformer) else keras.Model
        return kind(graph.input, outputs, name=name)


def _learn(x: keras.KerasTensor, known: Positions | None, request: _Request) -> Any:
    """Returns the tokens of a tensor, those in front put back, in the rank a sequence has."""
    layer = request.layer
    front, positions = None, x
    if len(x.shape) == 3:
        layout = _layout(x.shape[1], known, request)
        # Their own dtype: these layers hand on what they get, whatever policy is in force.
        if layout.num_prefix_tokens:
            prefix = layout.num_prefix_tokens
            front = SequencePart(0, prefix, dtype=x.dtype, name=f"{layer.name}_front")(x)
            positions = SequencePart(prefix, dtype=x.dtype, name=f"{layer.name}_rest")(x)
        if layout.grid is not None:
            fold = FoldGrid(layout.grid, dtype=x.dtype, name=f"{layer.name}_grid")
            positions = fold(positions)
    elif request.grid is not None or request.num_prefix_tokens:
        raise ValueError(
            "`grid` and `num_prefix_tokens` are for sequences (batch, positions, channels). "
            f"The input of {request.before!r} has the shape {tuple(x.shape)}."
        )
    try:
        tokens = layer(positions)
    except ValueError as error:
        raise ValueError(
            f"No TokenLearner before {request.before!r}: {reason_of(error)} For a sequence "
            "pass grid=(height, width) to insert_token_learner."
        ) from error
    if len(x.shape) == 3 and len(tokens.shape) == 4:  # (B, T, S, C)
        flat = (-1, tokens.shape[-1])
        tokens = keras.layers.Reshape(flat, dtype=tokens.dtype, name=f"{layer.name}_flat")(tokens)
    if front is None:
        return tokens
    join = keras.layers.Concatenate(axis=1, dtype=x.dtype, name=f"{layer.name}_joined")
    return join([front, tokens])


def _layout(length: int | None, known: Positions | None, request: _Request) -> Positions:
    """Returns what was asked for, completed by what is known of a sequence, if that fits."""
    grid, prefix = request.grid, request.num_prefix_tokens
    found = known or Positions()
    if prefix is None and grid is None:
        if _fits(length, found):
            return found
        if found.num_prefix_tokens:
            warnings.warn(
                f"The sequence before {request.before!r} has {length} tokens, no longer the "
                f"{found.num_prefix_tokens} in front and the grid {found.grid} of its position "
                "embedding. All become learned tokens; to keep those in front pass "
                f"num_prefix_tokens={found.num_prefix_tokens}, else num_prefix_tokens=0.",
                stacklevel=5,
            )
        return Positions()
    if grid is None:
        layout = Positions(prefix or 0, found.grid)
        layout = layout if _fits(length, layout) else Positions(prefix or 0)
    else:
        layout = Positions(found.num_prefix_tokens if prefix is None else prefix, grid)
        if prefix is None and not _fits(length, layout):
            layout = Positions(0, grid)
    size = layout.num_prefix_tokens + (1 if layout.grid is None else math.prod(layout.grid))
    if length is not None and (size > length or (layout.grid is not None and size != length)):
        raise ValueError(
            f"The input of {request.before!r} is a sequence of {length} tokens, which does not "
            f"fit {layout.num_prefix_tokens} tokens in front and the grid {layout.grid}. Pass "
            "`num_prefix_tokens` (1 for a class token) and `grid`, (height, width) or (time, "
            "height, width), so that they add up."
        )
    return layout


def _fits(length: int | None, layout: Positions) -> bool:
    return layout.grid is not None and length == layout.num_prefix_tokens + math.prod(layout.grid)


def _positions_before(x: keras.KerasTensor) -> Positions | None:
    """Returns the layout that the nearest layer upstream with one gives its output."""
    nodes, seen = [_producer(x)], set()
    while nodes:
        node = nodes.pop(0)
        known = known_positions(node.operation)
        if known is not None:
            return known
        if id(node) not in seen:
            seen.add(id(node))
            nodes += node.parent_nodes
    return None


def _producer(x: keras.KerasTensor) -> Node:
    operation, index, _ = x._keras_history
    return operation._inbound_nodes[index]


def _paths(model: keras.Model, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the path of every layer and operation, through models that are layers."""
    for operation in nested_graph(model).operations:  # type: ignore[union-attr]
        path = (*prefix, operation.name)
        yield path
        if nested_graph(operation) is not None:
            yield from _paths(operation, path)
        else:
            yield from ((*path, layer.name) for layer in inner_layers(operation))


def _find(model: keras.Model, before: str) -> tuple[str, ...]:
    """Returns the path of a layer given by its path, or by its name if that is unique."""
    paths = list(_paths(model))
    exact = [path for path in paths if "/".join(path) == before]
    found = exact or [path for path in paths if path[-1] == before]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(repr("/".join(path)) for path in found)
        raise ValueError(
            f"`before` must name one layer. {before!r} is the name of several in "
            f"{model.name!r}: pass a path, one of {listed}."
        )
    names = ["/".join(path) for path in paths]
    near = difflib.get_close_matches(str(before), [*names, *(path[-1] for path in paths)], n=3)
    hint = f" Near: {', '.join(dict.fromkeys(near))}." if near else ""
    raise ValueError(
        f"`before` must be the name of a layer of {model.name!r}. Received: {before!r}."
        f"{hint} model.summary(expand_nested=True) lists the layers."
    )


def _only_call(graph: keras.Model, name: str) -> Node:
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


def _only_tensor(node: Node) -> keras.KerasTensor:
    tensors = {id(tensor): tensor for tensor in symbolic_tensors(call_arguments(node))}
    if len(tensors) != 1:
        raise ValueError(
            f"`before` must name a layer that is called on one tensor. {node.operation.name!r} "
            f"is called on {len(tensors)}. Name the layer before or after it."
        )
    return next(iter(tensors.values()))


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, BaseTokenLearner):
        raise ValueError(
            "`layer` must be a TokenLearner layer, such as tk.TokenLearnerV11(8). Received: "
            f"{layer!r}."
        )
    if layer._inbound_nodes:
        raise ValueError(
            f"`layer` must be new. {layer.name!r} is already part of a model. Pass a layer of "
            "its own for each insertion; type(layer).from_config(layer.get_config()) makes one."
        )


def _check_name(graph: keras.Model, layer: BaseTokenLearner) -> None:
    if layer.name in {operation.name for operation in graph.operations}:
        raise ValueError(
            f"{graph.name!r} has a layer named {layer.name!r} already. Give the TokenLearner "
            "another name, such as name='second_token_learner'."
        )


def _unused_name(model: keras.Model) -> str:
    taken = {path[-1] for path in _paths(model)}
    names = ("token_learner", *(f"token_learner_{number}" for number in range(1, len(taken) + 1)))
    return next(name for name in names if name not in taken)


def _checked_grid(grid: Any) -> tuple[int, ...] | None:
    if grid is None:
        return None
    if not isinstance(grid, (list, tuple)) or len(grid) not in (2, 3):
        raise ValueError(
            f"`grid` must be (height, width) or (time, height, width). Received: {grid!r}."
        )
    return tuple(check_positive_integer(size, "grid") for size in grid)


def _checked(num_prefix_tokens: Any) -> int | None:
    if num_prefix_tokens is None:
        return None
    whole = isinstance(num_prefix_tokens, numbers.Integral)
    if not whole or isinstance(num_prefix_tokens, bool) or num_prefix_tokens < 0:
        raise ValueError(
            f"`num_prefix_tokens` must be an integer of at least 0. Received: {num_prefix_tokens!r}."
        )
    return int(num_prefix_tokens)

"""Builds models that return the tokens inside a model, as grids where they lie on one."""

import difflib
import math
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import all_named_calls
from tokenlearner_keras.graph import call_arguments
from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import named_calls
from tokenlearner_keras.graph import nested_graph
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.pooling import GridPooling
from tokenlearner_keras.layers.position_embedding import ClassToken
from tokenlearner_keras.layers.reshaping import FoldGrid
from tokenlearner_keras.layers.reshaping import SequencePart
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_merging import TokenMerging
from tokenlearner_keras.models.layer_lookup import TokenLayout
from tokenlearner_keras.models.layer_lookup import known_layout
from tokenlearner_keras.models.model import VisionTransformer

_MOST_LISTED = 60  # names in an error

#: How the tokens of tensors are laid out, by the `id` of the tensor.
Layouts = dict[int, TokenLayout]


def features(
    model: keras.Model, layers: Sequence[str], *, prefix_tokens: bool = False
) -> keras.Model:
    """Returns a model whose outputs are the tokens behind some of a model's layers.

    The two models share all layers: training one of them trains the other. The given model itself
    is unchanged. What only later layers need is not computed.

    Args:
        model: A functional model, or a Sequential one whose input is known.
        layers: Names of layers, as `model.summary()` shows them. A layer of a model that is itself
            a layer of this one has a path, `"backbone/encoder_block_3"`, and may be named without
            it if the name is unique; a layer that is called several times has a number,
            `"block:0"`.
        prefix_tokens: Whether the class token (or whatever is known to stand in front) is an output
            too.

    Returns:
        A functional model, not compiled, from the model's inputs to a dictionary with an entry for
        each name as it was given:

        - tokens that lie on the grid of the patches, or on the smaller one of a GridPooling,
          `(batch, height, width, channels)`, of videos `(batch, time, height, width, channels)`;
        - learned or merged tokens, which lie nowhere, `(batch, tokens, channels)`, those of the
          frames of a video one frame after the other (the output of the TokenLearner itself is
          `(batch, time, num_tokens, channels)`);
        - all else as the layer returns it, such as pooled features; of several results the first.

        A model with layers from inside a nested model and, beside them, layers after it computes
        the nested one twice and does not come back from a `.keras` file.

        A class token is left out of these. With `prefix_tokens` it is an entry of its own,
        `"encoder_block_3/prefix_tokens"`, of shape `(batch, 1, channels)`.

    Raises:
        ValueError: If the model is not functional, or has no layer of that name; the message lists
            the names.

    Example:
        >>> model = tk.create_model("vit_ti16_tl8at6")
        >>> tokens = tk.features(model, ["encoder_block_3", "encoder_block_11"])(images)
        >>> {name: each.shape for name, each in tokens.items()}
        {'encoder_block_11': (32, 8, 192), 'encoder_block_3': (32, 14, 14, 192)}
    """
    graph = functional_graph(model, "features")
    names = _found_paths(graph, layers)
    tensors = _tensors(graph, set(names.values()), {})
    outputs: dict[str, Any] = {}
    for name, path in names.items():
        tokens, front = _split(*tensors[path], path.replace("/", "_"))
        outputs[name] = tokens
        if prefix_tokens and front is not None:
            outputs[f"{name}/prefix_tokens"] = front
    kind = VisionTransformer if isinstance(graph, VisionTransformer) else keras.Model
    return kind(graph.input, outputs, name=model.name)


def _found_paths(graph: keras.Model, layers: Any) -> dict[str, str]:
    """Returns the path of each layer by the name that was given."""
    if isinstance(layers, str) or not layers:
        raise ValueError(
            f"`layers` must be a list of names of layers, such as [{layers or 'encoder_block_3'!r}]"
            f". Received: {layers!r}."
        )
    paths = [path for path, _ in all_named_calls(graph)]
    found = {}
    for name in layers:
        matches = [path for path in paths if path == name]
        matches = matches or [path for path in paths if path.rpartition("/")[2] == name]
        if len(matches) != 1:
            raise ValueError(_unknown(name, matches, paths))
        found[name] = matches[0]
    return found


def _unknown(name: Any, matches: list[str], paths: list[str]) -> str:
    if matches:
        return (
            f"`layers` must name one layer each. {name!r} is the name of several: pass a path, "
            f"one of {', '.join(matches)}."
        )
    near = difflib.get_close_matches(str(name), paths, n=3)
    hint = f" Near: {', '.join(near)}." if near else ""
    listed = ", ".join(paths[:_MOST_LISTED])
    if len(paths) > _MOST_LISTED:
        listed += f" and {len(paths) - _MOST_LISTED} more, see model.summary(expand_nested=True)"
    return (
        f"`layers` has {name!r}, which is not a layer of the model, or of a functional model in "
        f"it.{hint} There are: {listed}."
    )


def _tensors(
    graph: keras.Model, paths: Iterable[str], layouts: Layouts
) -> dict[str, tuple[keras.KerasTensor, TokenLayout | None]]:
    """Returns the first output of each call at a path and its layout, and completes `layouts`."""
    found: dict[str, tuple[keras.KerasTensor, TokenLayout | None]] = {}
    for name, node in named_calls(graph):
        inside = {path.removeprefix(f"{name}/") for path in paths if path.startswith(f"{name}/")}
        inner = nested_graph(node.operation)
        if inner is None:
            layout = _layout(node, layouts)
        else:
            entries = zip(keras.tree.flatten(inner.input), node.input_tensors, strict=False)
            within = {id(x): layouts[id(y)] for x, y in entries if id(y) in layouts}
            tensors = _tensors(inner, inside, within)
            layout = within.get(id(keras.tree.flatten(inner.output)[0]))
            if inside:
                # A call of its own, as the tensors of a model inside are not those of this graph.
                part = keras.Model(inner.input, {path: x for path, (x, _) in tensors.items()})
                args, kwargs = call_arguments(node)
                outputs = part(*args, **kwargs)
                found |= {f"{name}/{path}": (outputs[path], tensors[path][1]) for path in inside}
        if layout is not None:
            layouts[id(node.outputs[0])] = layout
        if name in paths:
            found[name] = (node.outputs[0], layout)
    return found


def _split(x: Any, layout: TokenLayout | None, name: str) -> tuple[Any, Any]:
    """Returns the tokens, on their grid if they have one, and those in front (None without)."""
    if layout is None or len(x.shape) != 3:
        return x, None
    prefix, front, tokens = layout.num_prefix_tokens, None, x
    if prefix:
        front = SequencePart(0, prefix, dtype=x.dtype, name=f"{name}_prefix_tokens")(x)
        tokens = SequencePart(prefix, dtype=x.dtype, name=f"{name}_tokens")(x)
    if layout.grid is not None:
        tokens = FoldGrid(layout.grid, dtype=x.dtype, name=f"{name}_on_grid")(tokens)
    return tokens, front


def _layout(node: Node, layouts: Layouts) -> TokenLayout | None:
    """Returns how the tokens of a call's output are laid out; None if that is not known."""
    operation, shape = node.operation, tuple(node.outputs[0].shape)
    known = known_layout(node)
    if known is not None:
        return known
    if isinstance(operation, (BaseTokenLearner, TokenMerging)):
        return TokenLayout()
    on_grid = (FoldGrid, GridPooling, PatchEmbedding, keras.layers.Conv2D, keras.layers.Conv3D)
    if isinstance(operation, on_grid):
        return TokenLayout(0, shape[1:-1])
    # Those of a TokenFuser lie where the original's did.
    tensors = node.input_tensors[::-1] if isinstance(operation, TokenFuser) else node.input_tensors
    inputs = [(tuple(x.shape), layouts[id(x)]) for x in tensors if id(x) in layouts]
    if not inputs or len(shape) < 3 or None in shape[1:]:
        return None
    if isinstance(operation, keras.layers.Concatenate):
        return _joined(inputs, shape)
    before, layout = inputs[0]
    if isinstance(operation, ClassToken):
        return TokenLayout(layout.num_prefix_tokens + 1, layout.grid)
    same = [each for each_shape, each in inputs if each_shape[1:-1] == shape[1:-1]]
    return same[0] if same else _reshaped_or_cut(before, layout, shape)


def _reshaped_or_cut(
    before: tuple[int | None, ...], layout: TokenLayout, shape: tuple[int | None, ...]
) -> TokenLayout | None:
    """Returns the layout of a sequence made of a grid, or of a part of a sequence."""
    length, prefix = shape[1], layout.num_prefix_tokens
    if len(shape) != 3 or not isinstance(length, int):
        return None
    if len(before) > 3:
        positions = math.prod(size or 0 for size in before[1:-1])
        return layout if positions == length else None
    if length == prefix:
        return TokenLayout(prefix)
    return TokenLayout(0, layout.grid) if length == (before[1] or 0) - prefix else None


def _joined(
    inputs: list[tuple[tuple[int | None, ...], TokenLayout]], shape: tuple[int | None, ...]
) -> TokenLayout | None:
    """Returns the layout of tokens in front, which are nothing else, and other tokens."""
    (front, first), *others = inputs
    if len(others) != 1 or len(shape) != 3 or first.num_prefix_tokens != front[1]:
        return None
    (rest, second), prefix = others[0], first.num_prefix_tokens
    if second.num_prefix_tokens or rest[1] is None or prefix + rest[1] != shape[1]:
        return None
    return TokenLayout(prefix, second.grid)

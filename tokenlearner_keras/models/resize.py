"""Builds a model for another input size from the weights of an existing one."""

import itertools
import math
from typing import Any

import keras
import numpy as np

from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import graph_calls
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_size
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.pooling import GridPooling
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.reshaping import FoldGrid
from tokenlearner_keras.layers.reshaping import FrameSampling
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_merging import TokenMerging
from tokenlearner_keras.layers.token_merging import merged_lengths
from tokenlearner_keras.models.x2plus1d import X2Plus1D
from tokenlearner_keras.weights.resize import resize_positions


def resize_model(
    model: keras.Model,
    image_size: int | tuple[int, int],
    num_frames: int | None = None,
) -> keras.Model:
    """Returns a new model with the same weights for images or videos of another size.

    The table of positions is interpolated to the new grid (linearly, the corners kept); every other
    weight is copied. A convolutional video model has no table. Where tokens are merged, as many are
    left as in the given model. The given model is unchanged. A compiled model gives a compiled
    model with a fresh optimizer.

    Args:
        model: A model of `tk.build_model` or `tk.create_model`, also one loaded from a file or
            changed by `tk.insert_token_learner`.
        image_size: Pixels, an integer or `(height, width)`. Grids are floored.
        num_frames: Frames of a video model. None keeps the number.

    Returns:
        A functional model of the same layers by name.

    Raises:
        ValueError: If the model has no patch embedding and table of positions of this package, or
            cannot take the size.

    Example:
        >>> model = tk.create_model("vit_b16_tl8at6", image_size=224)
        >>> larger = tk.resize_model(model, 384)  # fine-tune at 384 pixels

    Reference:
        Dosovitskiy et al. 2020, arXiv 2010.11929, section 3.2; scenic `projects/baselines/vit.py`
        interpolates the same way (`scipy.ndimage.zoom`).
    """
    graph = functional_graph(model, "resize_model")
    positions = None if isinstance(graph, X2Plus1D) else _only(graph, PositionEmbedding)
    _check_fusers(graph, num_frames)
    if any(getattr(layer, "lora_enabled", False) for layer in graph._flatten_layers()):
        raise ValueError(
            f"{graph.name!r} has LoRA's updates beside its kernels. Resize before tk.enable_lora, "
            "or save the model, which adds them to the kernels, and load it."
        )
    shape = _new_input_shape(graph, image_size, num_frames)
    changes: dict[str, dict[str, Any]] = {}

    def clone(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), **changes.get(layer.name, {})})

    inputs = keras.Input(shape, dtype=graph.inputs[0].dtype, name=graph.inputs[0].name)
    # The input in the structure that the model takes: a tensor, or a list or dict of one.
    structured = keras.tree.pack_sequence_as(graph.input, [inputs])
    try:
        if positions is not None:
            grid = _new_grid(graph, positions, shape)
            changes |= _changes(graph, positions.grid, grid)
        resized = keras.models.clone_model(graph, structured, clone_function=clone)
        _copy_weights(graph, resized, None if positions is None else positions.name)
    except ValueError as error:
        raise ValueError(
            f"Model {model.name!r} cannot be resized to inputs of shape {shape}: {error}"
        ) from error
    if isinstance(graph, X2Plus1D):
        resized.remat = graph.remat
    return resized


def _only(graph: keras.Model, kind: type) -> Any:
    """Returns the model's one layer of a type."""
    layers = [layer for layer in graph.layers if isinstance(layer, kind)]
    if len(layers) != 1 or len(graph.inputs) != 1:
        raise ValueError(
            "resize_model takes a model with one input, one PatchEmbedding and one "
            "PositionEmbedding, such as tk.create_model returns. Received "
            f"{graph.name!r} with {len(graph.inputs)} inputs and {len(layers)} layers of "
            f"type {kind.__name__}. Of a model that holds such a model, pass the inner one."
        )
    return layers[0]


def _check_fusers(graph: keras.Model, num_frames: int | None) -> None:
    """Raises ValueError if the number of frames is part of the weights."""
    fusers = [layer for layer in graph.layers if isinstance(layer, TokenFuser)]
    if num_frames is not None and any(fuser.mixing == "video" for fuser in fusers):
        raise ValueError(
            f"{graph.name!r} cannot be resized to num_frames={num_frames}: its TokenFuser with "
            "mixing='video' mixes the tokens of all frames by a matrix of that size. Use "
            "mixing='frame' (fuser_mixing='frame' in a configuration) for videos of any length."
        )


def _new_input_shape(
    graph: keras.Model, image_size: int | tuple[int, int], num_frames: int | None
) -> tuple[int, ...]:
    """Returns the shape of one input, `([time,] height, width, channels)`."""
    size = check_size(image_size, "image_size")
    shape = tuple(graph.inputs[0].shape[1:])
    if len(shape) not in (3, 4):
        raise ValueError(
            "resize_model takes a model of images (batch, height, width, channels) or videos "
            f"(batch, time, height, width, channels). {graph.name!r} takes {shape}."
        )
    if num_frames is None:
        return (*shape[:-3], *size, shape[-1])
    if len(shape) != 4:
        raise ValueError(
            f"`num_frames` is for videos; {graph.name!r} takes images. Received: {num_frames}."
        )
    return (check_positive_integer(num_frames, "num_frames"), *size, shape[-1])


def _new_grid(
    graph: keras.Model, positions: PositionEmbedding, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the grid that the patch embedding gives for inputs of a shape."""
    embedded: tuple[int | None, ...] = (None, *shape)
    for layer in graph.layers:
        if isinstance(layer, FrameSampling):
            embedded = layer.compute_output_shape(embedded)
    grid = _only(graph, PatchEmbedding).compute_output_shape(embedded)[1:-1]
    if len(grid) != len(positions.grid):
        raise ValueError(
            f"Model {graph.name!r} embeds a grid {grid} but its positions are {positions.grid}."
        )
    return tuple(grid)


def _changes(
    graph: keras.Model, old: tuple[int, ...], new: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    """Returns the new arguments of each layer that depends on the grid, by the layer's name."""
    # Time keeps its length through the model; height and width do until they are pooled to
    # a fixed grid, which does not depend on the image.
    changes: dict[str, dict[str, Any]] = {}
    for layer in graph.layers:
        if isinstance(layer, GridPooling):
            old, new = (*old[:-2], *layer.grid), (*new[:-2], *layer.grid)
        elif isinstance(layer, (PositionEmbedding, FoldGrid)) and layer.grid == old:
            changes[layer.name] = {"grid": new}
    return changes if old == new else changes | _changed_mergings(graph, old, new)


def _changed_mergings(
    graph: keras.Model, old: tuple[int, ...], new: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    """Returns the arguments with which as many tokens as before are left of another grid."""
    calls = [node for node in graph_calls(graph) if isinstance(node.operation, TokenMerging)]
    inputs = [node.input_tensors[0] for node in calls]
    if not calls:
        return {}
    # The tokens of each frame (B, T, N, C), or all of them (B, N, C).
    by_frame = len(inputs[0].shape) == 4
    positions, new_positions = (math.prod(grid[-2:] if by_frame else grid) for grid in (old, new))
    if inputs[0].shape[-2] - calls[0].operation.num_protected != positions:
        return {}  # not all positions; each takes away as many as before
    last = calls[-1]
    target = last.outputs[0].shape[-2] - last.operation.num_protected
    lengths = (new_positions, *merged_lengths(new_positions, target, len(calls)))
    changes: dict[str, dict[str, Any]] = {}
    for node, x, (before, after) in zip(calls, inputs, itertools.pairwise(lengths), strict=True):
        changes[node.operation.name] = {"num_merged": before - after}
        fold = x._keras_history.operation
        if by_frame and isinstance(fold, FoldGrid):
            changes[fold.name] = {"grid": (new[0], before)}
    return changes


def _copy_weights(model: keras.Model, resized: keras.Model, table: str | None) -> None:
    for layer in model.layers:
        weights = layer.get_weights()
        target = resized.get_layer(layer.name)
        if layer.name == table:
            weights = [_resized_table(weights[0], layer, target.grid)]
        target.set_weights(weights)
        # A layer frozen before it has weights would still train them.
        for old, new in zip(layer._flatten_layers(), target._flatten_layers(), strict=True):
            new.trainable = old.trainable


def _resized_table(
    table: np.ndarray, layer: PositionEmbedding, grid: tuple[int, ...]
) -> np.ndarray:
    """Returns the table (1, prefix + positions, channels) for another grid."""
    prefix = layer.num_prefix_tokens
    resized = resize_positions(table[0, prefix:], layer.grid, grid)
    return np.concatenate([table[:, :prefix], resized[None]], axis=1)

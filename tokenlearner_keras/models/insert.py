"""Puts a TokenLearner into any functional model, with the model's own weights."""

import functools
import math
from typing import Any
from typing import NamedTuple

import keras

from tokenlearner_keras.graph import calls_undone_on_error
from tokenlearner_keras.graph import checked_call
from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import reason_of
from tokenlearner_keras.graph import rewired_outputs
from tokenlearner_keras.layer_graph import held_layers
from tokenlearner_keras.layer_graph import opened
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import check_integer
from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.layers.reshaping import FoldGrid
from tokenlearner_keras.layers.reshaping import SequencePart
from tokenlearner_keras.layers.token_learner_v11 import TokenLearnerV11
from tokenlearner_keras.layers.token_merging import TokenMerging
from tokenlearner_keras.models.layer_lookup import Path
from tokenlearner_keras.models.layer_lookup import TokenLayout
from tokenlearner_keras.models.layer_lookup import find_layer
from tokenlearner_keras.models.layer_lookup import layer_paths
from tokenlearner_keras.models.layer_lookup import only_call
from tokenlearner_keras.models.layer_lookup import only_tensor
from tokenlearner_keras.models.layer_lookup import path_again
from tokenlearner_keras.models.model import VisionTransformer
from tokenlearner_keras.models.token_layout import check_token_grid
from tokenlearner_keras.models.token_layout import choose_layout
from tokenlearner_keras.models.token_layout import layout_before


def insert_token_learner(
    model: keras.Model,
    before: str,
    layer: BaseTokenLearner | TokenMerging | None = None,
    *,
    grid: tuple[int, ...] | None = None,
    num_prefix_tokens: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Returns a model that learns tokens just before one of a model's layers.

    The tensor that feeds the layer `before` becomes tokens for everything that takes it, so in a
    block with a shortcut the shortcut also carries the tokens: name the block, or the first layer
    of its (pre-norm) branch. The two models share all layers: training one of them trains the
    other. The given model itself is unchanged.

    The layers after it must take any number of tokens, as the blocks of a Transformer do. A
    convolutional network gets its TokenLearner in place of its head: build it without one
    (`include_top=False`), then TokenLearner, GlobalAveragePooling1D and a new head.

    Fine-tune the result. The weights after the TokenLearner were trained on many positions and meet
    tokens that are not trained at all. The authors found that pre-trained layers around a
    TokenLearner do not help on their own.

    Args:
        model: A functional model, or a Sequential one whose input is known; images are channels
            last. The ViT, DeiT and DINOv2 backbones and classifiers of keras_hub (tested with 0.32)
            and the ViT, DeiT, DINO and DINOv2 models of zeromodels (1.3.6) are understood, with
            their grid and their class, distillation and register tokens. DINOv3 has a table of
            positions in every block, so tokens can only follow its last one.
        before: Name of the layer, called once and on one tensor: a sequence
            `(batch, positions, channels)`, images `(batch, height, width, channels)` or videos
            `(batch, time, height, width, channels)`. A layer of a model that is itself a layer of
            this one, or of a stack of blocks, such as keras_hub's encoders, is found by its name
            or, if that is not unique, by its path, such as `"backbone/block_3"`.
        layer: A TokenLearner, PatchMerger or TokenMerging that no model uses yet; its dtype policy
            stays its own. With `per_frame=False` it needs videos, or sequences of a grid with a
            time axis. A TokenMerging takes sequences; put one before each block that shall have
            fewer tokens (each counts every token as one). None: `TokenLearnerV11(8)`.
        grid: For sequences: `(height, width)`, or `(time, height, width)` for tokens of every
            frame, which then follow each other in one sequence, or of the clip if the layer has
            `per_frame=False`. With a time axis a TokenMerging merges within each frame. None takes
            the grid of the position embedding that the sequence comes from, if it fits.
        num_prefix_tokens: For sequences: tokens in front (class and register tokens) that bypass
            the TokenLearner and stay in front. None finds the number as for `grid`, else 0.
        name: Name of the new model. None: that of the given one.

    Returns:
        A functional model, not compiled; `tk.attention_maps` shows its maps. As layers are shared,
        `layer.output` is still the tensor of the given model. What a subclass adds to the model (a
        preprocessor, a training step) is not carried over. A `.keras` file of it is loaded after
        importing this package and the one that the given model comes from. In a model made of
        `backbone.output`, keras_hub's ViT and DeiT layers (0.32) cannot be loaded: call the
        backbone as a layer, or `save_weights`, and insert again before loading them.

    Raises:
        ValueError: If the layer is unknown (the layers found are named), called several times or on
            several tensors, in a stack that cannot be opened, or already in use; if the grid does
            not fit; or if a later layer, which is named, cannot take the tokens. The given model is
            then unchanged.

    Example:
        >>> model = tk.create_model("vit_s16", num_classes=10)
        >>> fast = tk.insert_token_learner(model, "encoder_block_6", tk.TokenLearnerV11(16))
        >>> tk.count_macs(fast) / tk.count_macs(model)  # a little over a half

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, section 2; on pre-trained layers around it
        https://github.com/google-research/scenic/issues/112.
    """
    graph = functional_graph(model, "insert_token_learner")
    path = find_layer(graph, before)
    if layer is None:
        layer = TokenLearnerV11(8, name=_unused_name(graph))
    _check_layer(layer)
    grid = optional(check_token_grid, grid, "grid")
    if num_prefix_tokens is not None:
        num_prefix_tokens = check_integer(num_prefix_tokens, "num_prefix_tokens", minimum=0)
    request = _Request(layer, grid, num_prefix_tokens)
    return _insert(model, path, request, outside=None, name=name or model.name)


class _Request(NamedTuple):
    """What the caller asked for."""

    layer: BaseTokenLearner | TokenMerging
    grid: tuple[int, ...] | None
    num_prefix_tokens: int | None


def _insert(
    model: keras.Model, path: Path, request: _Request, outside: TokenLayout | None, name: str
) -> keras.Model:
    """Inserts at a path, also in nested models; `outside` is the input's token layout if known."""
    graph = functional_graph(model, "insert_token_learner")
    node = only_call(graph, path[0])
    x = only_tensor(node)
    is_stack = bool(held_layers(node.operation))
    within = node.operation._flatten_layers(include_self=False) if is_stack else []
    found = layout_before(x) or outside
    with calls_undone_on_error([*graph.operations, *within, request.layer]):
        tensors, operations = {}, {}
        if len(path) == 1:
            _check_name(graph, request.layer)
            tensors = {id(x): _learn(x, found, request)}
        else:
            inner = opened(node) if is_stack else node.operation
            inner = _insert(inner, path[1:], request, found, inner.name)
            operations = {id(node.operation): inner}
        outputs = rewired_outputs(graph, checked_call, tensors, operations)
        return _changed_model(model, outputs, _Change(path, request, outside), name)


class _Change(NamedTuple):
    """An insertion into a model, complete."""

    path: Path
    request: _Request
    outside: TokenLayout | None


def _changed_model(model: keras.Model, outputs: Any, change: _Change, name: str) -> keras.Model:
    """Returns a functional model of the class that can be saved."""
    graph = functional_graph(model, "insert_token_learner")
    if isinstance(model, VisionTransformer):
        return type(model)(graph.input, outputs, name=name)
    package = type(model).get_config.__module__.partition(".")[0]
    if package == "keras" or isinstance(model, keras.Sequential):
        return keras.Model(graph.input, outputs, name=name)
    changed = InsertedModel(graph.input, outputs, name=name)
    # Not as an attribute of its own: Keras would save the weights of the given model, too.
    changed._origin = functools.partial(_origin_config, model, change)
    return changed


def _origin_config(model: keras.Model, change: _Change) -> dict[str, Any]:
    layer, grid, num_prefix_tokens = change.request
    given = keras.saving.serialize_keras_object(model)
    given.pop("compile_config", None)
    return {
        "model": given,
        "input_shapes": _input_shapes(model),
        "path": list(change.path),
        "index": list(layer_paths(model)).index(change.path),
        "layer": keras.saving.serialize_keras_object(layer),
        "grid": grid,
        "num_prefix_tokens": num_prefix_tokens,
        "outside": None if change.outside is None else list(change.outside),
    }


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class InsertedModel(keras.Model):
    """A functional model with a TokenLearner, made of one that has a configuration of its own.

    The layers of keras_hub and zeromodels do not all come back from their own configurations, but
    their models do. So a file holds that of the given model, into which the TokenLearner is
    inserted again.
    """

    _origin: Any = None

    def get_config(self) -> dict[str, Any]:
        if self._origin is None:  # a clone, of which the graph is known
            return super().get_config()
        frozen = [i for i, layer in enumerate(self._flatten_layers()) if not layer.trainable]
        return {"name": self.name, "frozen": frozen, **self._origin()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> keras.Model:
        if "path" not in config:
            return super().from_config(config, custom_objects)
        load = functools.partial(
            keras.saving.deserialize_keras_object, custom_objects=custom_objects
        )
        given = load(config["model"])
        if _input_shapes(given) != [tuple(shape) for shape in config["input_shapes"]]:
            raise ValueError(
                f"{given.name!r} took inputs of the shapes {config['input_shapes']} when a "
                f"TokenLearner was inserted. Its own configuration makes {_input_shapes(given)} of "
                "them. Use save_weights, build the model by hand, insert again, and load_weights."
            )
        grid, outside = config["grid"], config["outside"]
        request = _Request(load(config["layer"]), grid and tuple(grid), config["num_prefix_tokens"])
        if outside is not None:
            outside = TokenLayout(outside[0], outside[1] and tuple(outside[1]))
        path = path_again(given, tuple(config["path"]), config["index"])
        model = _insert(given, path, request, outside, config["name"])
        # Whoever holds layers comes first, and sets them all.
        for index, layer in enumerate(model._flatten_layers()):
            layer.trainable = index not in config["frozen"]
        return model


def _input_shapes(model: keras.Model) -> list[tuple[int | None, ...]]:
    return [tuple(tensor.shape) for tensor in model.inputs]


def _learn(x: keras.KerasTensor, found: TokenLayout | None, request: _Request) -> Any:
    """Returns the tokens of a tensor; those of a sequence again as one sequence."""
    if len(x.shape) == 3:
        layout = choose_layout(x.shape[1], found, request.grid, request.num_prefix_tokens)
        return _learn_from_sequence(x, layout, request.layer)
    if request.grid is not None or request.num_prefix_tokens:
        raise ValueError(
            "`grid` and `num_prefix_tokens` are for sequences (batch, positions, channels). The "
            f"input of the layer named has the shape {tuple(x.shape)}."
        )
    if isinstance(request.layer, TokenMerging):
        raise ValueError(
            "A TokenMerging takes sequences (batch, tokens, channels). The input of the layer "
            f"named has the shape {tuple(x.shape)}. Name a layer whose input is a sequence."
        )
    _check_time(request.layer, tuple(x.shape[1:-1]))
    return _tokens(x, request.layer)


def _learn_from_sequence(
    x: keras.KerasTensor, layout: TokenLayout, layer: BaseTokenLearner | TokenMerging
) -> keras.KerasTensor:
    # These layers hand on what they get, so they take its dtype, whatever policy is in force.
    prefix, positions = layout.num_prefix_tokens, x
    if prefix:
        positions = SequencePart(prefix, dtype=x.dtype, name=f"{layer.name}_rest")(x)
    grid = layout.grid
    if isinstance(layer, TokenMerging):
        # It merges the tokens of a frame, wherever in it they are.
        grid = (grid[0], math.prod(grid[1:])) if grid is not None and len(grid) == 3 else None
    elif grid is not None:
        _check_time(layer, grid)
    if grid is not None:
        fold = FoldGrid(grid, dtype=x.dtype, name=f"{layer.name}_grid")
        positions = fold(positions)  # (B, [T,] H, W, C), to be merged (B, T, N, C)
    tokens = _tokens(positions, layer)  # (B, [T,] S, C)
    if len(tokens.shape) == 4:
        shape = (-1, tokens.shape[-1])
        flatten = keras.layers.Reshape(shape, dtype=tokens.dtype, name=f"{layer.name}_flat")
        tokens = flatten(tokens)  # (B, T*S, C)
    if not prefix:
        return tokens
    front = SequencePart(0, prefix, dtype=x.dtype, name=f"{layer.name}_front")(x)
    join = keras.layers.Concatenate(axis=1, dtype=x.dtype, name=f"{layer.name}_joined")
    return join([front, tokens])


def _check_time(layer: BaseTokenLearner, grid: tuple[int | None, ...]) -> None:
    """Raises ValueError if a layer that learns from whole clips would get images."""
    if not layer.per_frame and len(grid) == 2:
        raise ValueError(
            f"{layer.name!r} has per_frame=False: it learns tokens from all frames of a clip. The "
            f"positions have the grid {grid} of an image. Pass grid=(time, height, width) if they "
            "are those of a clip, or a layer with per_frame=True."
        )


def _tokens(
    positions: keras.KerasTensor, layer: BaseTokenLearner | TokenMerging
) -> keras.KerasTensor:
    try:
        return layer(positions)
    except ValueError as error:
        reason = f"{reason_of(error)}."
        if isinstance(layer, BaseTokenLearner):
            reason += " Of a sequence, insert_token_learner takes the grid as grid=(height, width)."
        raise ValueError(reason) from error


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, (BaseTokenLearner, TokenMerging)):
        raise ValueError(
            "`layer` must be a TokenLearner layer, such as tk.TokenLearnerV11(8), or a "
            f"tk.TokenMerging. Received: {layer!r}."
        )
    if layer._inbound_nodes:
        raise ValueError(
            f"`layer` must be new. {layer.name!r} is already part of a model. Pass a layer of "
            "its own for each insertion."
        )


def _check_name(graph: keras.Model, layer: keras.layers.Layer) -> None:
    if layer.name in {operation.name for operation in graph.operations}:
        raise ValueError(
            f"{graph.name!r} has a layer named {layer.name!r} already. Give the TokenLearner "
            "another name, such as name='second_token_learner'."
        )


def _unused_name(graph: keras.Model) -> str:
    taken = {path[-1] for path in layer_paths(graph)}
    names = ("token_learner", *(f"token_learner_{number}" for number in range(1, len(taken) + 1)))
    return next(name for name in names if name not in taken)

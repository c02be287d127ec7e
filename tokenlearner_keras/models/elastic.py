"""Changes the number of tokens that a model learns, with the model's own weights."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import keras

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import calls_undone_on_error
from tokenlearner_keras.graph import checked_call
from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import graph_calls
from tokenlearner_keras.graph import nested_graph
from tokenlearner_keras.graph import rewired_outputs
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_merging import TokenMerging
from tokenlearner_keras.models.model import VisionTransformer
from tokenlearner_keras.models.x2plus1d import X2Plus1D

_HINT = (
    "What follows the TokenLearner must take any number of tokens: pool over them "
    "(GlobalAveragePooling1D) in place of Flatten, and leave out tables of positions and shapes "
    "for one number of tokens."
)


def set_num_tokens(model: keras.Model, num_tokens: int) -> keras.Model:
    """Returns a model that works with the first of its learned tokens, with the same weights.

    Every TokenLearner and PatchMerger of the new model gives only its first `num_tokens` tokens, of
    a frame or of a whole clip, and does not compute the others; a TokenFuser takes the part of its
    weights for them. The two models share all variables: training one of them trains the other. The
    given model itself is unchanged.

    For good results train for it: every number of tokens in turn, as the trainer does with
    `model.elastic_tokens`.

    Args:
        model: A functional or Sequential model with TokenLearner or PatchMerger layers, also in
            functional models that are layers of it. The layers after them must take any number of
            tokens, `(batch, tokens, channels)`, as the blocks of a Transformer do.
        num_tokens: From 1 to the tokens of the model's layers, also after an earlier call: the new
            model has the weights of all tokens, and so does its `.keras` file.

    Returns:
        A functional model of the same layers by name, not compiled.

    Raises:
        ValueError: If the model is not functional or has no layer that learns tokens, a layer has
            fewer tokens, or a later layer, which is named, cannot take so few.

    Example:
        >>> model = tk.create_model("vit_ti16_tl16at6", num_classes=10)
        >>> small = tk.set_num_tokens(model, 4)
        >>> tk.count_macs(small) < tk.count_macs(model)
        True
    """
    graph = functional_graph(model, "set_num_tokens")
    num_tokens = check_positive_integer(num_tokens, "num_tokens")
    learners = [*filter(_learns, _flat_layers(graph))]
    for layer in _flat_layers(graph):
        _check_reachable(layer)
    if not learners:
        raise ValueError(_none_found(graph))
    for learner in learners:
        if num_tokens > learner.num_tokens:
            raise ValueError(
                f"`num_tokens` must be at most {learner.num_tokens}, the tokens of the layer "
                f"{learner.name!r}. Received: {num_tokens}. More have to be trained: build a "
                "model with that many."
            )
    return _changed(model, num_tokens)


def _changed(model: keras.Model, num_tokens: int) -> keras.Model:
    """Returns a model, or one that is a layer of it, with other layers where tokens are learned."""
    graph = functional_graph(model, "set_num_tokens")
    with calls_undone_on_error(graph.operations):
        operations: dict[int, Any] = {}
        for node in graph_calls(graph):
            if id(node.operation) not in operations:
                operations |= {id(old): new for old, new in _replacements(node, num_tokens)}
        call = partial(_call, num_tokens=num_tokens)
        outputs = rewired_outputs(graph, call, operations=operations)
        kind = type(model) if isinstance(model, VisionTransformer) else keras.Model
        changed = kind(graph.input, outputs, name=model.name)
    if isinstance(model, X2Plus1D):
        changed.remat = model.remat
    return changed


def _replacements(node: Node, num_tokens: int) -> Iterator[tuple[Any, Any]]:
    """Yields the operation of a call, or one that feeds it, with what takes its place."""
    operation = node.operation
    if isinstance(operation, BaseTokenLearner):
        active = None if num_tokens == operation.num_tokens else num_tokens
        yield operation, operation.sharing_weights(active_tokens=active)
    elif isinstance(operation, TokenFuser):
        tokens = _fused_tokens(node.arguments.args, node.arguments.kwargs)
        known = operation.num_tokens or tokens.shape[-2]
        yield operation, operation.sharing_weights(num_tokens=known)
        unfold = tokens._keras_history.operation
        if isinstance(unfold, keras.layers.Reshape):
            # The sequence of all frames' tokens, back by frame: the number stands in the shape.
            *leading, _, channels = unfold.target_shape
            shape = (*leading, num_tokens, channels)
            yield (
                unfold,
                keras.layers.Reshape.from_config({**unfold.get_config(), "target_shape": shape}),
            )
    else:
        inner = nested_graph(operation)
        if inner is not None and any(map(_learns, _flat_layers(inner))):
            yield operation, _changed(operation, num_tokens)


def _call(
    node: Node, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], num_tokens: int
) -> Any:
    if isinstance(operation, TokenFuser):
        count = _fused_tokens(args, kwargs).shape[-2]
        before = _fused_tokens(node.arguments.args, node.arguments.kwargs).shape[-2]
        if count not in (before, num_tokens):
            raise ValueError(
                f"TokenFuser {operation.name!r} gets {count} tokens in one sequence, those of "
                f"several frames or layers, in place of {before}: which of its weights are theirs "
                "is not known. Give it the tokens of each frame, (batch, time, tokens, channels)."
            )
    return checked_call(node, operation, args, kwargs, _HINT)


def _fused_tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns the first argument of a TokenFuser."""
    return args[0] if args else kwargs["tokens"]


def _learns(operation: Any) -> bool:
    return isinstance(operation, BaseTokenLearner)


def _flat_layers(graph: keras.Model) -> Iterator[Any]:
    """Yields the layers of a graph and of the graphs in it."""
    for operation in graph.operations:
        inner = nested_graph(operation)
        if inner is None:
            yield operation
        else:
            yield from _flat_layers(inner)


def _check_reachable(operation: Any) -> None:
    """Raises ValueError if a TokenLearner is inside a layer whose graph is not known."""
    if not isinstance(operation, keras.Layer):
        return
    for layer in operation._flatten_layers(include_self=False):
        if _learns(layer):
            raise ValueError(
                f"Layer {operation.name!r} of type {type(operation).__name__} calls "
                f"{layer.name!r} where set_num_tokens cannot replace it. Make the outer layer a "
                "functional model, or give the inner one active_tokens itself."
            )


def _none_found(graph: keras.Model) -> str:
    if any(isinstance(layer, TokenMerging) for layer in _flat_layers(graph)):
        reason = (
            "only TokenMerging layers, which have no weights: build it with another `num_tokens` "
            "or `num_merged`, and copy the weights (set_weights)"
        )
    else:
        reason = (
            "no TokenLearner layer: build one by a name such as vit_b16_tl8at6, or insert one by "
            "tk.insert_token_learner"
        )
    return f"set_num_tokens needs learned tokens. Model {graph.name!r} has {reason}."

"""Follows the attention of a model from its outputs back to the patches."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import named_calls
from tokenlearner_keras.graph import nested_graph
from tokenlearner_keras.introspection import Probe
from tokenlearner_keras.introspection import Reader
from tokenlearner_keras.introspection import attention_reader
from tokenlearner_keras.introspection import batches
from tokenlearner_keras.introspection import token_learner_maps
from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.encoder_block import StochasticDepth
from tokenlearner_keras.layers.mlp import MlpBlock
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.pooling import AttentionPooling
from tokenlearner_keras.layers.pooling import GridPooling
from tokenlearner_keras.layers.pooling import TokenPooling
from tokenlearner_keras.layers.pooling import averaging_matrix
from tokenlearner_keras.layers.position_embedding import ClassToken
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.reshaping import FoldGrid
from tokenlearner_keras.layers.reshaping import SequencePart
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_merging import TokenMerging
from tokenlearner_keras.layers.video_attention import VectorTransformer

#: How much of each patch is in each token: (batch, *tokens, patches); (batch, patches) when pooled.
Shares = np.ndarray


def attention_rollout(model: keras.Model, inputs: Any, batch_size: int = 32) -> Any:
    """Returns how much each output looks at each patch, through all layers of a functional model.

    The weights of the blocks, averaged over the heads and mixed half and half with the residual,
    are multiplied from block to block, and with the maps of the TokenLearners, each with the sum 1.
    So a learned token's attention goes on to the patches that the token was learned from. What a
    MLP does with the channels plays no part: a rollout shows where information may come from, not
    what for.

    Of the layers that change the tokens: TokenMerging and GridPooling count as the averages that
    they are; a TokenFuser by its mask and the absolute values of its mixing matrix, and half and
    half with the residual around it; a maximum over tokens (`"gmp"`) by the share of the channels
    in which each token is the largest. The class token, which comes from no patch, takes no share.

    Args:
        model: A functional or Sequential model with one PatchEmbedding, or a convolution whose
            stride is its kernel, and Transformer blocks; also inside a model that is a layer of it,
            with inserted TokenLearners, and what `tk.features` returns. Of other layers those that
            treat each token alone are understood, and the attention layers and additions of
            Transformers that are made of Keras' own layers.
        inputs: As for `tk.attention_maps`.
        batch_size: Examples per forward pass. N patches take N x N numbers of each.

    Returns:
        `(batch, height, width)` float32 in main memory, of videos `(batch, time, height, width)`,
        for a model with a classifier: one grid of patches per example, with the sum 1. For a model
        that returns tokens a grid for each, `(batch, tokens, height, width)`; the tokens have the
        axes that the model gives them. In the structure of the model's outputs.

    Raises:
        ValueError: If the model is not functional or has no patches, as a convolutional one; if it
            has a layer whose way to mix tokens is not known, which is named; if the inputs have no
            batch axis.

    Example:
        >>> model = tk.create_model("vit_ti16_tl8at6")
        >>> rollout = tk.attention_rollout(model, images)  # (32, 14, 14)
        >>> tk.plot_attention_maps(images, rollout[:, None])

    Reference:
        Abnar and Zuidema 2020, arXiv 2005.00928, for the blocks; the layers beyond them are this
        package's choice.
    """
    graph = functional_graph(model, "attention_rollout")
    probe = Probe(graph, _reader)
    parts: list[list[np.ndarray]] = []
    for batch in batches(graph, inputs, batch_size, "attention_rollout"):
        weights = {
            name: ops.convert_to_numpy(ops.cast(each, "float32"))
            for name, each in probe.maps(batch)
        }
        rollout = _Rollout(len(keras.tree.flatten(batch)[0]), weights)
        parts.append(rollout.outputs(graph))
    arrays = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return keras.tree.pack_sequence_as(graph.output, arrays)


def _reader(layer: Any) -> Reader | None:
    """Returns what reads the weights that `_RULES` needs of a layer; None if it needs none."""
    if isinstance(layer, BaseTokenLearner):
        return token_learner_maps
    if isinstance(layer, TokenMerging):
        return _merging_weights
    if isinstance(layer, TokenFuser):
        return _mask_weights
    if isinstance(layer, TokenPooling):
        return _shares_of_maximum if layer.mode == "gmp" else None
    read = attention_reader(layer)
    return None if read is None else lambda *a, **k: ops.mean(read(*a, **k), axis=-3)


def _merging_weights(layer: TokenMerging, x: Any, sizes: Any = None, **kwargs: Any) -> Any:
    del kwargs
    return layer.merging_weights(x, sizes)


def _mask_weights(layer: TokenFuser, tokens: Any, original: Any, **kwargs: Any) -> Any:
    del kwargs
    return layer.mask_weights(tokens, original)


def _shares_of_maximum(layer: TokenPooling, x: Any, **kwargs: Any) -> Any:
    """Returns the share of the channels in which each token is the largest, (B, N)."""
    del layer, kwargs
    x = ops.cast(x, "float32")
    largest = ops.cast(ops.equal(x, ops.amax(x, axis=1, keepdims=True)), "float32")
    return ops.mean(largest / ops.sum(largest, axis=1, keepdims=True), axis=-1)


def _normalized(weights: np.ndarray) -> np.ndarray:
    """Returns weights with the sum 1 over the last axis; zeros stay zeros."""
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


class _Unknown(Exception):
    """A layer mixes the tokens in a way that is not known."""


def _attend_and_keep(node: Node, shares: list[Any], weights: Any) -> Shares:
    return (weights @ shares[0] + shares[0]) / 2


def _attend(node: Node, shares: list[Any], weights: Any) -> Shares:
    value = shares[1] if len(shares) > 1 else shares[0]
    if value is None or value.ndim != 3:
        raise _Unknown
    return weights @ value


def _attend_once(node: Node, shares: list[Any], weights: Any) -> Shares:
    return (weights @ shares[0])[:, 0]


def _learn(node: Node, shares: list[Any], weights: Any) -> Shares:
    leading = node.outputs[0].ndim - 2  # the batch, and the time if frames have their own tokens
    maps = weights.reshape(*weights.shape[: leading + 1], -1)  # (B[, T], S, N)
    x = shares[0].reshape(*maps.shape[:leading], maps.shape[-1], -1)  # (B[, T], N, P)
    return _normalized(maps) @ x


def _merge(node: Node, shares: list[Any], weights: Any) -> Shares:
    return weights @ shares[0]


def _fuse(node: Node, shares: list[Any], weights: Any) -> Shares:
    tokens, original = shares
    if tokens is None or original is None:
        raise _Unknown
    matrix = ops.convert_to_numpy(node.operation.mixing_matrix(node.input_tensors[0].shape))
    matrix = _normalized(np.abs(matrix))  # (S', S'), of all frames with mixing="video"
    mixed = matrix @ tokens.reshape(-1, len(matrix), tokens.shape[-1])
    fused = _normalized(weights) @ mixed.reshape(tokens.shape)  # (B[, T], N, P)
    return fused.reshape(original.shape)


def _pool_grid(node: Node, shares: list[Any], weights: Any) -> Shares:
    x = shares[0]
    height, width = node.operation.grid
    rows, columns = averaging_matrix(x.shape[-3], height), averaging_matrix(x.shape[-2], width)
    return np.einsum("...hwp,ih,jw->...ijp", x, rows, columns, optimize=True)


def _pool(node: Node, shares: list[Any], weights: Any) -> Shares:
    mode = getattr(node.operation, "mode", "gap")
    if mode == "token":
        return shares[0][:, 0]
    return shares[0].mean(1) if weights is None else (weights[:, None] @ shares[0])[:, 0]


def _put_in_front(node: Node, shares: list[Any], weights: Any) -> Shares:
    return np.pad(shares[0], ((0, 0), (1, 0), (0, 0)))


def _keep(node: Node, shares: list[Any], weights: Any) -> Shares:
    return shares[0]


def _reshape(node: Node, shares: list[Any], weights: Any) -> Shares:
    before, after = node.input_tensors[0].shape, node.outputs[0].shape
    sizes = [-1 if size is None else size for size in after[1:-1]]
    if before[-1] != after[-1] or sizes.count(-1) > 1:
        raise _Unknown
    return shares[0].reshape(len(shares[0]), *sizes, shares[0].shape[-1])


def _cut(node: Node, shares: list[Any], weights: Any) -> Shares:
    if isinstance(node.operation, SequencePart):
        return shares[0][:, node.operation.start : node.operation.stop]
    key = node.arguments.args[1]
    key = key if isinstance(key, tuple) else (key,)
    whole_batch = isinstance(key[0], slice) and key[0] == slice(None)
    if not whole_batch or len(key) >= shares[0].ndim or Ellipsis in key or None in key:
        raise _Unknown
    return shares[0][key]


def _join(node: Node, shares: list[Any], weights: Any) -> Shares:
    axis, (known, *_) = node.operation.axis, [each for each in shares if each is not None]
    if axis in (-1, known.ndim - 1):
        raise _Unknown
    sizes = [x.shape[1:-1] for x in node.input_tensors]
    zeros = [np.zeros((len(known), *each, known.shape[-1]), "float32") for each in sizes]
    pairs = zip(shares, zeros, strict=True)
    return np.concatenate([zero if each is None else each for each, zero in pairs], axis)


def _add(node: Node, shares: list[Any], weights: Any) -> Shares:
    known = [each for each in shares if each is not None]
    shape = tuple(node.outputs[0].shape[1:-1])
    if any(each.shape[1:-1] != shape for each in known):
        raise _Unknown
    return np.mean(known, axis=0)


#: Layers, by their class, with what they do to the shares.
_RULES: tuple[tuple[Any, Callable[[Node, list[Any], Any], Shares]], ...] = (
    ((EncoderBlock, VectorTransformer), _attend_and_keep),
    ((MultiHeadAttention, keras.layers.MultiHeadAttention), _attend),
    (AttentionPooling, _attend_once),
    (BaseTokenLearner, _learn),
    (TokenMerging, _merge),
    (TokenFuser, _fuse),
    (GridPooling, _pool_grid),
    ((TokenPooling, keras.layers.GlobalAveragePooling1D), _pool),
    (ClassToken, _put_in_front),
    ((keras.layers.Reshape, FoldGrid), _reshape),
    (SequencePart, _cut),
    (keras.layers.Concatenate, _join),
    (keras.layers.Add, _add),
    (
        (
            keras.layers.Activation,
            keras.layers.BatchNormalization,
            keras.layers.Dense,
            keras.layers.Dropout,
            keras.layers.Identity,
            keras.layers.LayerNormalization,
            keras.layers.ReLU,
            MlpBlock,
            PositionEmbedding,
            StochasticDepth,
        ),
        _keep,
    ),
)

#: Operations without a class of their own in Keras' interface, `x[:, 1:]` and `x + y`.
_OPERATIONS = {"GetItem": _cut, "Add": _add}


def _rule(operation: Any) -> Callable[[Node, list[Any], Any], Shares] | None:
    for kinds, rule in _RULES:
        if isinstance(operation, kinds):
            return rule
    return None if isinstance(operation, keras.Layer) else _OPERATIONS.get(type(operation).__name__)


def _makes_patches(operation: Any) -> bool:
    if isinstance(operation, PatchEmbedding):
        return True
    if not isinstance(operation, (keras.layers.Conv2D, keras.layers.Conv3D)):
        return False
    sizes, strides = tuple(operation.kernel_size), tuple(operation.strides)
    return sizes == strides != (1,) * len(sizes) and operation.data_format == "channels_last"


class _Rollout:
    """The shares of the patches in the tokens of one batch, from call to call."""

    def __init__(self, batch: int, weights: dict[str, np.ndarray]) -> None:
        self.batch = batch
        self.weights = weights
        self.grid: tuple[int, ...] | None = None

    def outputs(self, graph: keras.Model) -> list[np.ndarray]:
        """Returns a grid of patches for each token of each output."""
        found = self._follow(graph, {}, path="")
        if self.grid is None or any(each is None for each in found):
            raise ValueError(
                f"attention_rollout goes back to the patches of a PatchEmbedding, or of a "
                f"convolution whose stride is its kernel. Model {graph.name!r} has an output "
                'without any. tk.attention_maps(model, inputs, layers="all") shows the '
                "attention of each layer of this package and of Keras."
            )
        arrays = [_normalized(each) for each in found]
        return [each.reshape(*each.shape[:-1], *self.grid).astype("float32") for each in arrays]

    def _follow(self, graph: keras.Model, known: dict[int, Any], path: str) -> list[Any]:
        """Returns the shares of a graph's outputs; `known` has those of its inputs, by `id`."""
        for name, node in named_calls(graph):
            shares = [known.get(id(x)) for x in node.input_tensors]
            inner = nested_graph(node.operation)
            if inner is not None:
                inputs = zip(map(id, keras.tree.flatten(inner.input)), shares, strict=False)
                results = self._follow(inner, dict(inputs), f"{path}{name}/")
            else:
                results = [self._step(node, shares, f"{path}{name}")]
            known |= zip(map(id, node.outputs), results, strict=False)
        return [known.get(id(x)) for x in keras.tree.flatten(graph.output)]

    def _step(self, node: Node, shares: list[Any], name: str) -> Any:
        """Returns the shares of a call's first output."""
        if all(each is None for each in shares):
            return self._patches(node) if _makes_patches(node.operation) else None
        pooled = next(each for each in shares if each is not None)
        if pooled.ndim == 2:
            return pooled  # What each example looks at stays, whatever becomes of its channels.
        rule = _rule(node.operation)
        try:
            if rule is None:
                raise _Unknown
            return rule(node, shares, self.weights.get(name))
        except _Unknown:
            shapes = ", ".join(str(tuple(x.shape)) for x in node.input_tensors)
            raise ValueError(
                f"attention_rollout cannot go through layer {name!r} of type "
                f"{type(node.operation).__name__}, called on {shapes}: how it mixes the tokens is "
                "not known. It follows this package's layers for tokens, and of Keras' attention, "
                "additions and layers that treat each token alone. tk.features(model, [name]) of "
                "a layer before this one makes a model that it can follow."
            ) from None

    def _patches(self, node: Node) -> Shares:
        grid = tuple(node.outputs[0].shape[1:-1])
        if self.grid is not None or None in grid:
            raise ValueError(
                "attention_rollout follows one grid of patches, of known size. Layer "
                f"{node.operation.name!r} makes the grid {grid}, the one before it {self.grid}. "
                "Build the model for a fixed size."
            )
        self.grid = grid
        identity = np.eye(int(np.prod(grid)), dtype="float32")
        identity = identity.reshape(*grid, -1)
        return np.broadcast_to(identity, (self.batch, *identity.shape))

"""Closed forms: what a call of each known layer and operation costs."""

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras

from tokenlearner_keras.graph import Node
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.encoder_block import StochasticDepth
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.patch_merger import PatchMerger
from tokenlearner_keras.layers.pooling import AttentionPooling
from tokenlearner_keras.layers.position_embedding import ClassToken
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_learner import TokenLearner
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.layers.token_learner_v11 import TokenLearnerV11
from tokenlearner_keras.layers.video_attention import GridAttention
from tokenlearner_keras.layers.video_attention import VectorTransformer

# Operations per element in XLA's count of the unoptimised graph, counted by hand.
LAYER_NORM_OPERATIONS = 8
GELU_OPERATIONS = 7
SOFTMAX_OPERATIONS = 4

#: Of an input or output, without the batch.
Shape = tuple[int, ...]


class Cost(NamedTuple):
    """Cost of one forward pass at batch 1."""

    macs: int = 0  # multiply-accumulates of matrix products and convolutions
    elementwise: int = 0  # operations of LayerNorm, GELU and softmax

    def __add__(self, other: object) -> "Cost":
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(self.macs + other.macs, self.elementwise + other.elementwise)

    def __mul__(self, times: object) -> "Cost":
        if not isinstance(times, int):
            return NotImplemented
        return Cost(times * self.macs, times * self.elementwise)


def known_cost(node: Node, shapes: list[Shape], output: Shape) -> Cost | None:
    """Returns the cost of a call by its closed form; None if there is none.

    Args:
        node: The call of a layer or operation.
        shapes: Its inputs; of Keras' attention query, value and key.
        output: Its first output.
    """
    layer = node.operation
    for kind, cost in _COSTS.items():
        if isinstance(layer, kind):
            return cost(layer, shapes, output)
    if isinstance(layer, _FREE) or _name_of(layer) in _FREE_BY_NAME:
        return Cost()
    product = None if isinstance(layer, keras.Layer) else _PRODUCTS.get(type(layer).__name__)
    return None if product is None else product(node, output)


def hides_products(layer: Any) -> bool:
    """Says whether a layer or operation without a closed form may multiply matrices."""
    return type(layer).__name__ in _UNKNOWN_PRODUCTS or bool(getattr(layer, "weights", ()))


def query_value_key(node: Node) -> list[Any]:
    """Returns the inputs of Keras' attention; masks are also inputs, but cost nothing."""
    layer, arguments = node.operation, node.arguments
    call = inspect.signature(layer.call).bind(*arguments.args, **arguments.kwargs)
    query, value = call.arguments["query"], call.arguments["value"]
    key = call.arguments.get("key")
    return [query, value, value if key is None else key]


def _name_of(layer: Any) -> tuple[str, str]:
    return type(layer).__module__, type(layer).__name__


def _matmul(node: Node, output: Shape) -> Cost:
    return Cost(math.prod(output) * _operand_shapes(node)[0][-1])


def _einsum(node: Node, output: Shape) -> Cost | None:
    """The product of all sizes but the batch; only of two operands without an ellipsis."""
    shapes = _operand_shapes(node)
    labels = node.operation.subscripts.replace(" ", "").partition("->")[0].split(",")
    if len(labels) != 2 or "." in "".join(labels):
        return None
    sizes = dict(zip("".join(labels), sum(shapes, ()), strict=True))
    batch = node.outputs[0].shape[0] or 1
    return Cost(math.prod(size or 1 for size in sizes.values()) // batch)


def _dot_product_attention(node: Node, output: Shape) -> Cost:
    query, key, value = _operand_shapes(node)  # (B, positions, heads, channels)
    pairs = query[1] * key[1] * query[2]
    return Cost(pairs * (query[3] + value[3]), SOFTMAX_OPERATIONS * pairs)


def _operand_shapes(node: Node) -> list[tuple[Any, ...]]:
    """Returns the shapes of an operation's first arguments, symbolic tensors or arrays."""
    operands = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    return [tuple(x.shape) for x in operands if hasattr(x, "shape")]


def _dense(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    macs = Cost(math.prod(output) * shapes[0][-1])
    return macs + _activation(layer, shapes, output)


def _activation(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    name = getattr(layer.activation, "__name__", "")
    each = {"gelu": GELU_OPERATIONS, "softmax": SOFTMAX_OPERATIONS}.get(name, 0)
    return Cost(0, each * math.prod(output))


def _convolution(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    # Grouped convolutions have a kernel of fewer input channels.
    positions = math.prod(output) // layer.filters
    return Cost(positions * math.prod(layer.kernel.shape))


def _depthwise(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    return Cost(math.prod(output) * math.prod(layer.kernel_size))


def _separable(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
    positions = math.prod(output) // layer.filters
    return Cost(positions * sum(math.prod(kernel.shape) for kernel in kernels))


def _layer_norm(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    return Cost(0, LAYER_NORM_OPERATIONS * math.prod(output))


def _patch_embedding(layer: PatchEmbedding, shapes: list[Shape], output: Shape) -> Cost:
    patch = math.prod(layer.patch_size) * layer.tubelet_size * shapes[0][-1]
    return Cost(math.prod(output) * patch)


def _attention(queries: int, keys: int, width: int, num_heads: int) -> Cost:
    projections = (2 * queries + 2 * keys) * width * width
    products = 2 * queries * keys * width
    softmax = SOFTMAX_OPERATIONS * num_heads * queries * keys
    return Cost(projections + products, softmax)


def _keras_attention(
    layer: keras.layers.MultiHeadAttention, shapes: list[Shape], output: Shape
) -> Cost:
    query, value, key = shapes
    heads, key_dim, value_dim = layer.num_heads, layer.key_dim, layer.value_dim or layer.key_dim
    projections = _positions(query) * heads * (key_dim * query[-1] + value_dim * output[-1])
    projections += _positions(key) * heads * key_dim * key[-1]
    projections += _positions(value) * heads * value_dim * value[-1]
    # Every query meets the keys along the attention's axes; the other axes act as a batch.
    axes = layer._attention_axes or range(1, len(query))
    axes = [axis - 1 if axis > 0 else axis for axis in axes]
    pairs = _positions(query) * math.prod(key[axis] for axis in axes)
    return Cost(
        pairs * heads * (key_dim + value_dim) + projections, SOFTMAX_OPERATIONS * heads * pairs
    )


def _mlp(positions: int, width: int, hidden: int, output: int) -> Cost:
    return Cost(positions * hidden * (width + output), GELU_OPERATIONS * positions * hidden)


def _encoder_block(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    tokens, width = output
    norms = Cost(0, 2 * LAYER_NORM_OPERATIONS * tokens * width)
    attention = _attention(tokens, tokens, width, layer.num_heads)
    return norms + attention + _mlp(tokens, width, layer.mlp_dim, width)


def _vector_transformer(layer: VectorTransformer, shapes: list[Shape], output: Shape) -> Cost:
    tokens, width = output
    norm = Cost(0, LAYER_NORM_OPERATIONS * tokens * width)
    return norm + _attention(tokens, tokens, width, layer.num_heads or width)


def _grid_attention(layer: GridAttention, shapes: list[Shape], output: Shape) -> Cost:
    frames, height, width, channels = output
    sizes = {"space_time": output[:-1], "space": (height, width), "time": (frames,)}
    positions, keys = _positions(output), math.prod(sizes[layer.axes])
    projections = positions * channels * (2 * layer.key_width + channels)
    products = positions * keys * (layer.key_width + channels)
    softmax = SOFTMAX_OPERATIONS * layer.num_heads * positions * keys
    return Cost(projections + products, softmax)


def _attention_pooling(layer: AttentionPooling, shapes: list[Shape], output: Shape) -> Cost:
    tokens, width = shapes[0]
    norm = Cost(0, LAYER_NORM_OPERATIONS * width)
    attention = _attention(1, tokens, width, layer.num_heads)
    return norm + attention + _mlp(1, width, layer.mlp_dim, width)


def _token_learner(layer: TokenLearner, shapes: list[Shape], output: Shape) -> Cost:
    positions, width = _positions(shapes[0]), shapes[0][-1]
    inner, given = layer.num_convolutions - 1, output[-2]
    channels = (width, *[layer.num_tokens] * inner, given)
    convolutions = 9 * sum(a * b for a, b in itertools.pairwise(channels))
    gelu = GELU_OPERATIONS * inner * layer.num_tokens
    norm = LAYER_NORM_OPERATIONS * width
    return Cost(positions * (convolutions + given * width), positions * (norm + gelu))


def _softmax_pooling(shape: Shape, output: Shape) -> Cost:
    """Returns the cost of the norm, the softmax and the sums, without that of the logits."""
    positions, width, tokens = _positions(shape), shape[-1], output[-2]
    norm = LAYER_NORM_OPERATIONS * positions * width
    softmax = SOFTMAX_OPERATIONS * positions * tokens
    return Cost(positions * tokens * width, norm + softmax)


def _token_learner_v11(layer: TokenLearnerV11, shapes: list[Shape], output: Shape) -> Cost:
    logits = _mlp(_positions(shapes[0]), shapes[0][-1], layer.bottleneck_dim, output[-2])
    return _softmax_pooling(shapes[0], output) + logits


def _patch_merger(layer: PatchMerger, shapes: list[Shape], output: Shape) -> Cost:
    pooling = _softmax_pooling(shapes[0], output)
    return pooling + Cost(pooling.macs)  # the logits take as many products as the sums


def _token_learner_mha(layer: TokenLearnerMHA, shapes: list[Shape], output: Shape) -> Cost:
    tokens, width = output[-2:]
    frames = math.prod(output[:-2])
    # The queries are the same for every frame, or clip, but are projected for each.
    attention = _attention(tokens, _positions(shapes[0]) // frames, width, layer.num_heads)
    return Cost(frames * attention.macs, frames * attention.elementwise)


def _token_fuser(layer: TokenFuser, shapes: list[Shape], output: Shape) -> Cost:
    tokens, width = shapes[0][-2:]
    frames = math.prod(shapes[0][:-2])
    positions = _positions(shapes[1])
    mixed = tokens * frames if layer.mixing == "video" else tokens
    mixing = Cost(frames * tokens * mixed * width)
    norms = positions * width + 2 * int(layer.use_normalization) * frames * tokens * width
    spread = Cost(positions * tokens * width, LAYER_NORM_OPERATIONS * norms)
    if layer.bottleneck_dim is None:
        return mixing + spread + Cost(positions * tokens * width)
    return mixing + spread + _mlp(positions, width, layer.bottleneck_dim, tokens)


def _positions(shape: Shape) -> int:
    """Returns the number of positions of all frames."""
    return math.prod(shape[:-1])


_LayerCost = Callable[[Any, list[Shape], Shape], Cost]
_COSTS: dict[Any, _LayerCost] = {
    PatchEmbedding: _patch_embedding,
    EncoderBlock: _encoder_block,
    GridAttention: _grid_attention,
    VectorTransformer: _vector_transformer,
    AttentionPooling: _attention_pooling,
    TokenLearner: _token_learner,
    TokenLearnerV11: _token_learner_v11,
    TokenLearnerMHA: _token_learner_mha,
    PatchMerger: _patch_merger,
    TokenFuser: _token_fuser,
    keras.layers.Dense: _dense,
    keras.layers.Activation: _activation,
    (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D): _convolution,
    (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D): _depthwise,
    (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D): _separable,
    keras.layers.LayerNormalization: _layer_norm,
    keras.layers.MultiHeadAttention: _keras_attention,
}
# Layers whose weights are added or scaled, or only used for their state.
_FREE = (
    PositionEmbedding,
    ClassToken,
    StochasticDepth,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.GroupNormalization,
    keras.layers.Normalization,
)
_FREE_BY_NAME = {("keras.src.applications.convnext", "LayerScale")}
_PRODUCTS: dict[str, Callable[[Node, Shape], Cost | None]] = {
    "DotProductAttention": _dot_product_attention,
    "Einsum": _einsum,
    "Gelu": lambda node, output: Cost(0, GELU_OPERATIONS * math.prod(output)),
    "Matmul": _matmul,
    "Softmax": lambda node, output: Cost(0, SOFTMAX_OPERATIONS * math.prod(output)),
}
# Layers without weights and operations that multiply, or call functions that may.
_UNKNOWN_PRODUCTS = {
    *("AdditiveAttention", "Attention", "Dot", "Einsum", "Inner", "Kron", "Matmul", "Outer"),
    *("DotProductAttention", "Tensordot", "Vdot"),
    *("Conv", "ConvTranspose", "Correlate", "DepthwiseConv", "SeparableConv"),
    *("AssociativeScan", "Cond", "ForiLoop", "Map", "Scan", "Switch", "VectorizedMap"),
    *("WhileLoop",),
}

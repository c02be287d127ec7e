"""Cost of a model: multiply-accumulates and the paper's GFLOPS."""

import inspect
import itertools
import math
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras

from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import graph_calls
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


def count_macs(model: keras.Model, input_shape: tuple[int, ...] | None = None) -> int:
    """Returns the multiply-accumulates of one forward pass at batch 1, head included.

    Args:
        model: A functional model of this package's layers, of Keras' Dense, convolution
            (also depthwise and separable), attention and weightless layers, of keras_hub's
            ViT, and of layers that define `count_macs(*input_shapes)`, which gets the shapes
            of the inputs without the batch.
        input_shape: Shape of one input without the batch. None takes the
            model's; required if the model's has unknown sizes.

    Raises:
        ValueError: If a size is unknown or a layer with weights has no known cost.
    """
    return model_cost(model, input_shape).macs


def paper_gflops(model: keras.Model) -> float:
    """Returns the GFLOPS of one forward pass in the paper's convention.

    One multiply-accumulate counts once and an element-wise operation half: the
    paper's figures are XLA's count divided by two.
    """
    cost = model_cost(model)
    return (cost.macs + cost.elementwise / 2) / 1e9


def model_cost(model: keras.Model, input_shape: Shape | None = None) -> Cost:
    """Returns the cost of a functional model; see `count_macs`."""
    model = functional_graph(model, "count_macs")
    if input_shape is not None and tuple(model.input_shape[1:]) != tuple(input_shape):
        model = _with_input_shape(model, tuple(input_shape))
    total = Cost()
    for layer, shapes, output in _calls(model):
        total += _layer_cost(layer, shapes, output)
    return total


def _with_input_shape(model: keras.Model, shape: Shape) -> keras.Model:
    inputs = keras.Input(shape, batch_size=1)
    try:
        return keras.models.clone_model(model, input_tensors=inputs)
    except ValueError as error:
        raise ValueError(
            f"{model.name!r} takes inputs of shape {model.input_shape[1:]} and cannot be "
            f"counted at {shape}: {error}"
        ) from error


def _calls(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, list[Shape], Shape]]:
    """Yields every layer call of a functional model with its shapes, without the batch."""
    for node in graph_calls(model):
        layer, tensors = node.operation, node.input_tensors
        if isinstance(layer, keras.layers.MultiHeadAttention):
            tensors = _query_value_key(layer, node)
        shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        yield layer, shapes, tuple(node.output_tensors[0].shape[1:])


def _query_value_key(layer: Any, node: Any) -> list[Any]:
    """Returns the inputs of Keras' attention; masks are also inputs, but cost nothing."""
    call = inspect.signature(layer.call).bind(*node.arguments.args, **node.arguments.kwargs)
    query, value = call.arguments["query"], call.arguments["value"]
    key = call.arguments.get("key")
    return [query, value, value if key is None else key]


def _layer_cost(layer: keras.layers.Layer, shapes: list[Shape], output: Shape) -> Cost:
    if any(size is None for shape in (*shapes, output) for size in shape):
        raise ValueError(
            f"The cost of layer {layer.name!r} depends on an unknown size: inputs "
            f"{shapes}. Pass input_shape=(height, width, channels)."
        )
    if isinstance(layer, keras.Model):
        return _nested_cost(layer, shapes)
    if callable(getattr(layer, "count_macs", None)):
        return Cost(int(layer.count_macs(*shapes)))
    for kind, cost in _COSTS.items():
        if isinstance(layer, kind):
            return cost(layer, shapes, output)
    known = _COSTS_BY_NAME.get((type(layer).__module__, type(layer).__name__))
    if known is not None:
        return known(layer, shapes, output)
    weighted = bool(getattr(layer, "weights", ())) and not isinstance(layer, _FREE)
    if weighted or type(layer).__name__ in _PRODUCTS:
        raise ValueError(
            f"The cost of {layer.name!r} of type {type(layer).__name__} is not known. "
            "count_macs knows this package's layers, Dense, convolutions and "
            "MultiHeadAttention of Keras, keras_hub's ViT, operations without products, and "
            "layers with a method count_macs(*input_shapes) of their own."
        )
    return Cost()


def _nested_cost(model: keras.Model, shapes: list[Shape]) -> Cost:
    graph = functional_graph(model, "count_macs")
    if [tuple(tensor.shape[1:]) for tensor in graph.inputs] == shapes:
        return model_cost(graph)
    if len(shapes) == 1:
        return model_cost(graph, shapes[0])
    raise ValueError(
        f"The model {model.name!r} inside is called on inputs {shapes}, other than those it was "
        "built for, and has several. Count it separately."
    )


def _dense(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    return Cost(math.prod(output) * shapes[0][-1])


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


def _keras_hub_encoder(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    block = _encoder_block(layer, shapes, output)
    norm = LAYER_NORM_OPERATIONS * math.prod(output)
    return Cost(layer.num_layers * block.macs, layer.num_layers * block.elementwise + norm)


def _keras_hub_embedding(layer: Any, shapes: list[Shape], output: Shape) -> Cost:
    patches = output[0] - int(getattr(layer, "use_class_token", True))
    return Cost(patches * math.prod(layer.patch_embedding.kernel.shape))


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
    (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D): _convolution,
    (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D): _depthwise,
    (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D): _separable,
    keras.layers.LayerNormalization: _layer_norm,
    keras.layers.MultiHeadAttention: _keras_attention,
}
# Layers of other packages, identified by module and class so that no package is imported.
_KERAS_HUB_VIT = "keras_hub.src.models.vit.vit_layers"
_COSTS_BY_NAME: dict[tuple[str, str], _LayerCost] = {
    (_KERAS_HUB_VIT, "ViTPatchingAndEmbedding"): _keras_hub_embedding,
    (_KERAS_HUB_VIT, "ViTEncoder"): _keras_hub_encoder,
    (_KERAS_HUB_VIT, "ViTEncoderBlock"): _encoder_block,
    ("keras.src.applications.convnext", "LayerScale"): lambda *call: Cost(),
}
# Operations without weights that still multiply matrices.
_PRODUCTS = {
    "AdditiveAttention",
    "Attention",
    "Dot",
    "DotProductAttention",
    "Einsum",
    "Matmul",
    "Tensordot",
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

"""Returns the attention maps of the layers in a model."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import all_named_calls
from tokenlearner_keras.graph import filled
from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import named_calls
from tokenlearner_keras.graph import nested_graph
from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.pooling import AttentionPooling
from tokenlearner_keras.layers.video_attention import GridAttention
from tokenlearner_keras.layers.video_attention import VectorTransformer
from tokenlearner_keras.models.model import VisionTransformer

_WITH_HEADS = (
    AttentionPooling,
    EncoderBlock,
    GridAttention,
    MultiHeadAttention,
    VectorTransformer,
)

#: Takes a layer and the arguments of a call, and returns the weights of its attention.
Reader = Callable[..., Any]


def attention_maps(
    model: keras.Model,
    inputs: Any,
    batch_size: int = 32,
    *,
    layers: str | Sequence[str] = "token_learners",
    average_heads: bool = False,
) -> dict[str, np.ndarray]:
    """Returns the attention maps of the TokenLearners, or of all attention, in a functional model.

    One batch at a time is on the device; the maps are gathered in main memory, four bytes per
    position, token and example. For more examples than fit there, call it on slices of the inputs;
    an array on disk (`numpy.load(path, mmap_mode="r")`) is read batch by batch. The self-attention
    of N tokens has N x N weights per head: of a large model name the blocks to look at.

    Args:
        model: A functional or Sequential model with the layers, also in functional models that are
            layers of it.
        inputs: A batch of the model's inputs: an array, or arrays in the structure of
            `model.input`.
        batch_size: Examples per forward pass.
        layers: `"token_learners"`, or `"all"` also for the self-attention of the encoder blocks,
            the attention of the classifier `"map"`, and the attention layers of Keras; or a list of
            names, as in the result.
        average_heads: Whether the weights of all but TokenLearners are averaged over the heads.

    Returns:
        Maps by layer name, in the order in which the model computes them, float32.

        Of a TokenLearner: `(batch, num_tokens, height, width)`, for video `(batch, time,
        num_tokens, height, width)` or, of a layer with `per_frame=False`, `(batch, num_tokens,
        time, height, width)`, and `(batch, num_tokens, positions)` where the layer's input is a
        sequence. A TokenMerging has no maps.

        Of a block: `(batch, num_heads, queries, keys)`, with `average_heads` `(batch, queries,
        keys)`, each row with the sum 1, in whatever form the block computes its attention. A class
        token comes first, the tokens of the frames of a video one frame after the other. The
        classifier has one query. A GridAttention in space has the axis `time` after the batch, one
        in time `height, width`.

        The name of a layer inside a layer is its path, `"backbone/token_learner"`; if a layer is
        called several times in this model each call has a number, `"token_learner:0"`.

    Raises:
        ValueError: If the model is not functional, has none of the layers, or has a TokenLearner
            inside a layer whose graph is not known; if the inputs have no batch axis.

    Example:
        >>> model = tk.create_model("vit_ti16_tl8at6")
        >>> tk.attention_maps(model, images)["token_learner_0"].shape
        (32, 8, 14, 14)
        >>> tk.attention_maps(model, images, layers=["encoder_block_0"])["encoder_block_0"].shape
        (32, 3, 196, 196)
    """
    graph = functional_graph(model, "attention_maps")
    if layers == "token_learners":
        probe = Probe(graph, _read_token_learner)
    else:
        _check_layers(graph, layers)
        names = None if layers == "all" else tuple(layers)
        probe = Probe(graph, lambda layer: _read_attention(layer, average_heads), names)
    if probe.features is None:
        missing, hint = "", ' layers="all" gives the self-attention of its blocks.'
        if layers == "all":
            missing = " and no attention layer of this package or of Keras"
            hint = " What is inside layers of other packages cannot be read."
        raise ValueError(
            f"Model {model.name!r} has no TokenLearner layer{missing}, so there are no maps. Build "
            f"one by a name such as vit_b16_tl8at6, or insert one by tk.insert_token_learner.{hint}"
        )
    parts: dict[str, list[np.ndarray]] = {}
    for batch in batches(graph, inputs, batch_size, "attention_maps"):
        for name, maps in probe.maps(batch):
            parts.setdefault(name, []).append(keras.ops.convert_to_numpy(maps))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def token_learners(model: keras.Model) -> dict[str, BaseTokenLearner]:
    """Returns the layers by the names that `attention_maps` gives their maps."""
    calls = all_named_calls(functional_graph(model, "token_learners"))
    found = {name: node.operation for name, node in calls}
    return {name: each for name, each in found.items() if isinstance(each, BaseTokenLearner)}


def _read_token_learner(layer: Any) -> Reader | None:
    if isinstance(layer, BaseTokenLearner):
        return token_learner_maps
    _check_has_none(layer)
    return None


def _read_attention(layer: Any, average_heads: bool) -> Reader | None:
    read = attention_reader(layer)
    if read is None or not average_heads:
        return read or _read_token_learner(layer)
    return lambda *args, **kwargs: keras.ops.mean(read(*args, **kwargs), axis=-3)


def token_learner_maps(layer: BaseTokenLearner, *args: Any, **kwargs: Any) -> Any:
    """Returns the maps of a call of a TokenLearner."""
    return layer(*args, **{**kwargs, "return_attention_maps": True, "training": False})[1]


def attention_reader(layer: Any) -> Reader | None:
    """Returns what reads the weights of a layer, heads before queries and keys; None without."""
    if isinstance(layer, keras.layers.MultiHeadAttention):
        return _scores_of_keras
    return _weights_of_heads if isinstance(layer, _WITH_HEADS) else None


def _weights_of_heads(layer: Any, *args: Any, **kwargs: Any) -> Any:
    kwargs.pop("training", None)
    return layer.attention_weights(*args, **kwargs)


def _scores_of_keras(layer: Any, *args: Any, **kwargs: Any) -> Any:
    options = {**kwargs, "return_attention_scores": True, "training": False}
    return keras.ops.cast(layer(*args, **options)[1], "float32")


def _check_layers(graph: keras.Model, layers: Any) -> None:
    """Raises ValueError unless `layers` is "all" or a list of names of layers with maps."""
    calls = list(all_named_calls(graph))
    named = [
        name
        for name, node in calls
        if isinstance(node.operation, BaseTokenLearner) or attention_reader(node.operation)
    ]
    if isinstance(layers, str):
        if layers == "all":
            return
        expected = '"token_learners", "all" or a list of names'
        raise ValueError(f"`layers` must be {expected}. Received: {layers!r}.")
    unknown = [name for name in layers if name not in named]
    if unknown or not layers:
        raise ValueError(
            f"`layers` must name layers with attention maps. Received: {list(layers)!r}. "
            f"The model has: {', '.join(named) or 'none'}."
        )


def batches(graph: keras.Model, inputs: Any, batch_size: int, purpose: str) -> Iterator[Any]:
    """Yields the inputs of a model batch by batch; raises ValueError if they are not a batch."""
    check_positive_integer(batch_size, "batch_size")
    if not hasattr(inputs, "shape") and len(keras.tree.flatten(inputs)) != len(graph.inputs):
        raise ValueError(
            f"{purpose} expects {len(graph.inputs)} array(s) with the batch first, in "
            f"the structure of model.input. Received: {type(inputs).__name__}."
        )
    _check_batch_axis(graph, inputs, purpose)
    count = len(keras.tree.flatten(inputs)[0])
    if count == 0:
        raise ValueError(f"{purpose} needs at least one example. Received an empty batch.")
    for start in range(0, count, batch_size):
        stop = start + batch_size
        yield keras.tree.map_structure(lambda x, a=start, b=stop: x[a:b], inputs)


def _check_batch_axis(graph: keras.Model, inputs: Any, purpose: str) -> None:
    """Raises ValueError for a single image or clip."""
    for array, tensor in zip(
        keras.tree.flatten(inputs), keras.tree.flatten(graph.input), strict=False
    ):
        shape, expected = tuple(getattr(array, "shape", ())), tuple(tensor.shape)
        if shape and len(shape) == len(expected) - 1:
            if None not in expected[1:] and shape != expected[1:]:
                raise ValueError(
                    f"{purpose} expects a batch, of shape {expected}. Received shape {shape}."
                )
            name = {3: "image", 4: "clip"}.get(len(shape), "example")
            raise ValueError(
                f"{purpose} expects a batch, of shape {expected}. Received one {name} of "
                f"shape {shape}: add a batch axis, {name}[None]."
            )


class Probe:
    """Runs a model up to the layers that are asked for, and reads the weights of their attention.

    `reader` says of a layer how it is read, None for those that are not; `names`, if given, are the
    only ones to read.

    The arguments of the calls become outputs of `features`, a model that shares all weights (None
    if there is nothing to read); the layers are then called on the values, which leaves the graph
    as it is.
    """

    def __init__(
        self,
        graph: keras.Model,
        reader: Callable[[Any], Reader | None],
        names: Sequence[str] | None = None,
        path: str = "",
    ) -> None:
        self.calls: dict[str, Node] = {}
        self.readers: dict[str, Reader] = {}
        self.probes: dict[str, Probe] = {}
        for name, node in named_calls(graph):
            inner = nested_graph(node.operation)
            if inner is not None:
                probe = Probe(inner, reader, names, f"{path}{name}/")
                if probe.features is not None:
                    self.calls[name], self.probes[name] = node, probe
            elif names is None or f"{path}{name}" in names:
                read = reader(node.operation)
                if read is not None:
                    self.calls[name], self.readers[name] = node, read
        tensors = {name: node.input_tensors for name, node in self.calls.items()}
        self.features: keras.Model | None = None
        if tensors:
            # The model's own class, so that a wrong size fails as in a call of that model.
            kind = VisionTransformer if isinstance(graph, VisionTransformer) else keras.Model
            self.features = kind(graph.input, tensors, name=graph.name)

    def maps(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Yields the weights by name; the arguments are those of the model."""
        if self.features is None:
            return
        tensors = self.features(*args, **{**kwargs, "training": False})
        for name, node in self.calls.items():
            values = dict(zip(map(id, node.input_tensors), tensors[name], strict=True))
            args, kwargs = filled((node.arguments.args, node.arguments.kwargs), values)
            if name in self.probes:
                for inner, maps in self.probes[name].maps(*args, **kwargs):
                    yield f"{name}/{inner}", maps
            else:
                yield name, self.readers[name](node.operation, *args, **kwargs)


def _check_has_none(operation: Any) -> None:
    """Raises ValueError if a TokenLearner is inside a layer whose graph is not known."""
    if not isinstance(operation, keras.Layer):
        return
    inside = operation._flatten_layers(include_self=False)
    hidden = [layer for layer in inside if isinstance(layer, BaseTokenLearner)]
    if hidden:
        raise ValueError(
            f"Layer {operation.name!r} of type {type(operation).__name__} calls the "
            f"TokenLearner {hidden[0].name!r} where attention_maps cannot look. Have it return "
            "the maps that return_attention_maps=True gives, or make it a functional model."
        )

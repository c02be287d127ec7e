"""Returns the attention maps of every TokenLearner in a model."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import filled
from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import graph_calls
from tokenlearner_keras.graph import nested_graph
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.models.model import VisionTransformer


def attention_maps(model: keras.Model, inputs: Any, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Returns the attention maps of every TokenLearner in a functional model.

    One batch at a time is on the device; the maps are gathered in main memory, four bytes per
    position, token and example. For more examples than fit there, call it on slices of the inputs;
    an array on disk (`numpy.load(path, mmap_mode="r")`) is read batch by batch.

    Args:
        model: A functional or Sequential model with TokenLearner layers, also in functional models
            that are layers of it.
        inputs: A batch of the model's inputs: an array, or arrays in the structure of
            `model.input`.
        batch_size: Examples per forward pass.

    Returns:
        Maps by layer name, float32: `(batch, num_tokens, height, width)`, for video `(batch, time,
        num_tokens, height, width)` or, of a layer with `per_frame=False`, `(batch, num_tokens,
        time, height, width)`, and `(batch, num_tokens, positions)` where the layer's input is a
        sequence. A TokenMerging has no maps. The name of a layer inside a layer is its path,
        `"backbone/token_learner"`; if a layer is called several times in this model each call has
        a number, `"token_learner:0"`.

    Raises:
        ValueError: If the model is not functional, has no TokenLearner, or has one inside a layer
            whose graph is not known; if the inputs have no batch axis.

    Example:
        >>> model = tk.create_model("vit_ti16_tl8at6")
        >>> tk.attention_maps(model, images)["token_learner_0"].shape
        (32, 8, 14, 14)
    """
    check_positive_integer(batch_size, "batch_size")
    graph = functional_graph(model, "attention_maps")
    probe = _Probe(graph)
    if probe.features is None:
        raise ValueError(
            f"Model {model.name!r} has no TokenLearner layer, so there are no maps. Build "
            "one by a name such as vit_b16_tl8at6, or insert one by tk.insert_token_learner."
        )
    if not hasattr(inputs, "shape") and len(keras.tree.flatten(inputs)) != len(model.inputs):
        raise ValueError(
            f"attention_maps expects {len(model.inputs)} array(s) with the batch first, in "
            f"the structure of model.input. Received: {type(inputs).__name__}."
        )
    _check_batch_axis(graph, inputs)
    count = len(keras.tree.flatten(inputs)[0])
    if count == 0:
        raise ValueError("attention_maps needs at least one example. Received an empty batch.")
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, count, batch_size):
        stop = start + batch_size
        batch = keras.tree.map_structure(lambda x, a=start, b=stop: x[a:b], inputs)
        for name, maps in probe.maps(batch):
            parts.setdefault(name, []).append(keras.ops.convert_to_numpy(maps))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def token_learners(model: keras.Model) -> dict[str, BaseTokenLearner]:
    """Returns the layers by the names that `attention_maps` gives their maps."""
    found: dict[str, BaseTokenLearner] = {}
    for name, node in _named_calls(functional_graph(model, "token_learners")):
        inner = nested_graph(node.operation)
        if isinstance(node.operation, BaseTokenLearner):
            found[name] = node.operation
        elif inner is not None:
            found |= {f"{name}/{path}": layer for path, layer in token_learners(inner).items()}
    return found


def _check_batch_axis(graph: keras.Model, inputs: Any) -> None:
    """Raises ValueError for a single image or clip."""
    for array, tensor in zip(
        keras.tree.flatten(inputs), keras.tree.flatten(graph.input), strict=False
    ):
        shape, expected = tuple(getattr(array, "shape", ())), tuple(tensor.shape)
        if shape and len(shape) == len(expected) - 1:
            if None not in expected[1:] and shape != expected[1:]:
                raise ValueError(
                    f"attention_maps expects a batch, of shape {expected}. Received shape {shape}."
                )
            name = {3: "image", 4: "clip"}.get(len(shape), "example")
            raise ValueError(
                f"attention_maps expects a batch, of shape {expected}. Received one {name} of "
                f"shape {shape}: add a batch axis, {name}[None]."
            )


class _Probe:
    """Runs a model up to its TokenLearners, and calls these with their maps.

    The arguments of the calls become outputs of `features`, a model that shares all weights (None
    if there is no TokenLearner); the layers are then called on the values, which leaves the graph
    as it is.
    """

    def __init__(self, graph: keras.Model) -> None:
        self.calls: dict[str, Node] = {}
        self.probes: dict[str, _Probe] = {}
        for name, node in _named_calls(graph):
            inner = nested_graph(node.operation)
            if isinstance(node.operation, BaseTokenLearner):
                self.calls[name] = node
            elif inner is None:
                _check_has_none(node.operation)
            else:
                probe = _Probe(inner)
                if probe.features is not None:
                    self.calls[name], self.probes[name] = node, probe
        tensors = {name: node.input_tensors for name, node in self.calls.items()}
        self.features: keras.Model | None = None
        if tensors:
            # The model's own class, so that a wrong size fails as in a call of that model.
            kind = VisionTransformer if isinstance(graph, VisionTransformer) else keras.Model
            self.features = kind(graph.input, tensors, name=graph.name)

    def maps(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Yields the maps by name; the arguments are those of the model."""
        assert self.features is not None
        tensors = self.features(*args, **{**kwargs, "training": False})
        for name, node in self.calls.items():
            values = dict(zip(map(id, node.input_tensors), tensors[name], strict=True))
            args, kwargs = filled((node.arguments.args, node.arguments.kwargs), values)
            if name in self.probes:
                for inner, maps in self.probes[name].maps(*args, **kwargs):
                    yield f"{name}/{inner}", maps
            else:
                options = {**kwargs, "return_attention_maps": True, "training": False}
                yield name, node.operation(*args, **options)[1]


def _named_calls(graph: keras.Model) -> Iterator[tuple[str, Node]]:
    """Yields the calls of a graph by their layer's name, numbered if there are several."""
    nodes = graph_calls(graph)
    totals = Counter(node.operation.name for node in nodes)
    seen: Counter[str] = Counter()
    for node in nodes:
        name = node.operation.name
        yield (f"{name}:{seen[name]}" if totals[name] > 1 else name), node
        seen[name] += 1


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

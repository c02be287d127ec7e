"""Cost of a model: multiply-accumulates and the paper's GFLOPS."""

from typing import Any

import keras

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import calls_undone
from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import graph_calls
from tokenlearner_keras.layer_costs import Cost
from tokenlearner_keras.layer_costs import Shape
from tokenlearner_keras.layer_costs import hides_products
from tokenlearner_keras.layer_costs import known_cost
from tokenlearner_keras.layer_costs import query_value_key
from tokenlearner_keras.layer_graph import is_foreign
from tokenlearner_keras.layer_graph import layer_graph


def count_macs(model: keras.Model, input_shape: tuple[int, ...] | None = None) -> int:
    """Returns the multiply-accumulates of one forward pass at batch 1, head included.

    Args:
        model: A functional model of this package's layers, of Keras' Dense, convolution
            (also depthwise and separable), attention and weightless layers, of matmul, einsum and
            attention of `keras.ops`, and of other packages' layers that are made of these (such as
            those of keras_hub's and zeromodels' Transformers) or define
            `count_macs(*input_shapes)`, which gets the shapes of the inputs without the batch.
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
    if input_shape is not None and _input_shapes(model) != [tuple(input_shape)]:
        model = _with_input_shape(model, tuple(input_shape))
    return sum((_call_cost(node) for node in graph_calls(model)), Cost())


def _input_shapes(model: keras.Model) -> list[Shape]:
    return [tuple(tensor.shape[1:]) for tensor in model.inputs]


def _with_input_shape(model: keras.Model, shape: Shape) -> keras.Model:
    try:
        # In the structure that the model takes: a tensor, or a list or dict of one.
        inputs = keras.tree.pack_sequence_as(model.input, [keras.Input(shape, batch_size=1)])
        return keras.models.clone_model(model, input_tensors=inputs)
    except Exception as error:
        raise ValueError(
            f"{model.name!r} takes inputs of shape {_input_shapes(model)} and cannot be "
            f"counted at {shape}: {error}"
        ) from error


def _call_cost(node: Node) -> Cost:
    layer, tensors = node.operation, node.input_tensors
    if isinstance(layer, keras.layers.MultiHeadAttention):
        tensors = query_value_key(node)
    shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
    output = tuple(node.output_tensors[0].shape[1:])
    if any(size is None for shape in (*shapes, output) for size in shape):
        raise ValueError(
            f"The cost of layer {layer.name!r} depends on an unknown size: inputs "
            f"{shapes}. Pass input_shape=(height, width, channels)."
        )
    if isinstance(layer, keras.Model):
        return _nested_cost(layer, shapes)
    if callable(getattr(layer, "count_macs", None)):
        return Cost(int(layer.count_macs(*shapes)))
    known = known_cost(node, shapes, output)
    if known is not None:
        return known
    reason = ""
    if is_foreign(layer):
        try:
            return _cost_inside(node)
        except ValueError as error:
            reason = f": {str(error).removesuffix('.')}"
    if hides_products(layer):
        raise ValueError(
            f"The cost of {layer.name!r} of type {type(layer).__name__} is not known{reason}. "
            "count_macs knows this package's layers, Dense, convolutions and "
            "MultiHeadAttention of Keras, matmul, einsum and operations without products, what "
            "other packages make of these, and layers with a method count_macs(*input_shapes)."
        )
    return Cost()


def _nested_cost(model: keras.Model, shapes: list[Shape]) -> Cost:
    graph = functional_graph(model, "count_macs")
    if _input_shapes(graph) == shapes:
        return model_cost(graph)
    if len(shapes) == 1:
        return model_cost(graph, shapes[0])
    raise ValueError(
        f"The model {model.name!r} inside is called on inputs {shapes}, other than those it was "
        "built for, and has several. Count it separately."
    )


def _cost_inside(node: Node) -> Cost:
    """Returns the cost of what a layer's `call` does; raises ValueError if that is not known."""
    with calls_undone(node.operation._flatten_layers(include_self=False)):
        graph = layer_graph(node, batch_size=1)
        total = Cost()
        for call in graph_calls(graph):
            # Windows or frames that the layer has folded into the batch count each.
            tensors = (
                call.input_tensors if isinstance(call.operation, keras.Layer) else call.outputs
            )
            total += _call_cost(call) * _batch(tensors)
    return Cost(*(number // _batch(node.input_tensors) for number in total))


def _batch(tensors: list[Any]) -> int:
    return (tensors[0].shape[:1] or (1,))[0] or 1

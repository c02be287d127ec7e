"""The graph inside a layer of another package: its `call`, traced on symbolic tensors."""

import inspect
from typing import Any

import keras

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import call_arguments
from tokenlearner_keras.graph import calls_undone
from tokenlearner_keras.graph import filled
from tokenlearner_keras.graph import graph_calls
from tokenlearner_keras.graph import reason_of
from tokenlearner_keras.graph import symbolic_tensors


def is_foreign(operation: Any) -> bool:
    """Says whether this is a layer of neither Keras nor this package, and not a model."""
    package = type(operation).__module__.partition(".")[0]
    is_layer = isinstance(operation, keras.Layer) and not isinstance(operation, keras.Model)
    return is_layer and (package not in ("keras", "tokenlearner_keras") or _is_block(operation))


def layer_graph(node: Node, batch_size: int | None = None, **options: Any) -> keras.Model:
    """Returns the calls that a layer makes inside one of its own calls, as a functional model.

    Weights that `call` itself uses, not a layer in it, are constants of the graph.

    Args:
        node: The call of the layer.
        batch_size: Stands for an unknown batch, which `call` may need to know.
        options: Arguments in addition to those of the call.

    Returns:
        A model with the layer's name, of the tensors that the call takes to those of its outputs
        that depend on them, both flat.

    Raises:
        ValueError: If `call` does what symbolic tensors cannot.
    """
    layer, (args, kwargs) = node.operation, call_arguments(node)
    if _is_block(layer):
        layer = layer.block
    tensors = {id(tensor): tensor for tensor in symbolic_tensors((args, kwargs))}
    inputs = {key: _input_like(tensor, batch_size) for key, tensor in tensors.items()}
    try:
        outputs = _outputs(layer, filled(args, inputs), {**filled(kwargs, inputs), **options})
        return keras.Model([*inputs.values()], symbolic_tensors(outputs), name=layer.name)
    except Exception as error:
        raise ValueError(
            f"what {layer.name!r} of type {type(layer).__name__} does inside cannot be read: "
            f"{reason_of(error)}."
        ) from error


_DEIT_ENCODER = "keras_hub.src.models.deit.deit_layers.DeiTEncoder"


class _DeiTBlock(keras.layers.Layer):
    """A block of keras_hub's DeiT, which returns `(x, None)`, as a layer that returns `x`."""

    def __init__(self, block: keras.layers.Layer) -> None:
        super().__init__(name=block.name, dtype=block.dtype_policy)
        self.block = block

    def call(self, x: Any) -> Any:
        return self.block(x)[0]

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(
            "keras_hub's DeiT layers do not come back from their configurations. Call the backbone "
            "as a layer of the model, backbone(images), and insert again: that is saved. Or use "
            "save_weights."
        )


def _is_block(operation: Any) -> bool:
    return isinstance(operation, _DeiTBlock)


def _outputs(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if f"{type(layer).__module__}.{type(layer).__name__}" != _DEIT_ENCODER:
        return layer.call(*args, **kwargs)
    if kwargs or len(args) != 1:
        raise ValueError("it is called with masks, or for more than its last output")
    x = args[0]
    for block in layer.encoder_layers:
        x = _DeiTBlock(block)(x)
    return layer.layer_norm(x)


def _input_like(tensor: keras.KerasTensor, batch_size: int | None) -> keras.KerasTensor:
    batch, *shape = tensor.shape
    shape = (batch_size if batch is None else batch, *shape)
    return keras.Input(batch_shape=shape, dtype=tensor.dtype)


def held_layers(operation: Any) -> list[keras.layers.Layer]:
    """Returns the layers of a stack of blocks, in the order it holds them; of others none.

    A stack, such as keras_hub's ViTEncoder, has no weights but those of the layers that it holds,
    and all of these that hold layers themselves are of one class, also of another package.
    """
    if not is_foreign(operation):
        return []
    held = operation._flatten_layers(include_self=False, recursive=False)
    blocks = [layer for layer in held if layer._layers]
    alike = len({type(layer) for layer in blocks}) == 1 and is_foreign(blocks[0])
    own = len(operation.weights) - sum(len(layer.weights) for layer in held)
    return held if alike and not own else []


def opened(node: Node) -> keras.Model:
    """Returns what a call of a stack does as a functional model of the layers that it holds.

    Raises:
        ValueError: If `call` cannot be read, or does something else in training.
    """
    stack = node.operation
    graph = layer_graph(node)
    reason = None
    if {id(weight) for weight in stack.weights} != {id(weight) for weight in graph.weights}:
        reason = "not all of its weights are those of layers that it calls"
    if "training" in inspect.signature(stack.call).parameters:
        with calls_undone(stack._flatten_layers(include_self=False)):
            if _steps(layer_graph(node, training=True)) != _steps(graph):
                reason = "it does something else in training"
    if reason is not None:
        raise ValueError(
            f"{stack.name!r} of type {type(stack).__name__} cannot be opened: {reason}. Name the "
            "layer as a whole, or build the model with its blocks as layers."
        )
    return graph


def _steps(graph: keras.Model) -> list[Any]:
    """Returns the layers and the kinds of operations of a graph, in order."""
    operations = [node.operation for node in graph_calls(graph)]
    return [each if isinstance(each, keras.Layer) else type(each) for each in operations]

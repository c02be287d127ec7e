"""Reads and rewires the graph of a functional Keras model."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras

#: A call of a layer or operation that a Keras graph records: `operation`, `arguments`
#: (`args`, `kwargs`), `input_tensors`, `outputs` and `parent_nodes`.
Node = Any


def nested_graph(operation: Any) -> keras.Model | None:
    """Returns the graph of a functional or built Sequential model; None if it has none."""
    graph = operation
    if isinstance(operation, keras.Sequential):
        graph = getattr(operation, "_functional", None)
    return graph if isinstance(graph, keras.Model) and hasattr(graph, "operations") else None


def graph_calls(graph: keras.Model) -> list[Node]:
    """Returns the calls of a functional model in running order, inputs left out.

    A layer can have calls in the graphs of other models as well: they are not among them.
    """
    depths = graph._nodes_by_depth
    return [
        node
        for depth in sorted(depths, reverse=True)
        for node in depths[depth]
        if not node.is_input
    ]


def filled(structure: Any, values: dict[int, Any]) -> Any:
    """Returns a structure with the tensors that `values` knows, by `id`, replaced."""
    return keras.tree.map_structure(lambda x: values.get(id(x), x), structure)


def symbolic_tensors(structure: Any) -> list[keras.KerasTensor]:
    """Returns the symbolic tensors in a structure."""
    return [x for x in keras.tree.flatten(structure) if isinstance(x, keras.KerasTensor)]


def call_arguments(node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call without the masks that Keras filled in.

    Keras records the mask of an input among the arguments of some calls as if the user
    had passed it. A new call must take the mask of its new input instead.
    """
    args, kwargs = node.arguments.args, node.arguments.kwargs
    inputs = symbolic_tensors((args, kwargs))
    implied = {id(getattr(tensor, "_keras_mask", None)) for tensor in inputs} | {id(None)}

    def is_implied(name: str, value: Any) -> bool:
        masks = keras.tree.flatten(value)
        return name.endswith("mask") and all(id(mask) in implied for mask in masks)

    return args, {k: v for k, v in kwargs.items() if not is_implied(k, v)}


def rewired_outputs(
    graph: keras.Model,
    call: Callable[[Node, Any, tuple[Any, ...], dict[str, Any]], Any],
    tensors: dict[int, Any] | None = None,
    operations: dict[int, Any] | None = None,
) -> Any:
    """Calls everything again that follows a change and returns the outputs.

    Args:
        graph: A functional model.
        call: Takes a node, an operation and arguments, calls the operation on them.
        tensors: New symbolic tensors by the `id` of those in the graph, for all that take
            them; one that is itself an output stays.
        operations: New layers by the `id` of those in the graph.

    Returns:
        Tensors in the structure of `graph.output`; what follows no change stays as it is.
    """
    values, operations = dict(tensors or {}), operations or {}
    outputs: dict[int, Any] = {}
    for node in graph_calls(graph):
        args, kwargs = call_arguments(node)
        operation = operations.get(id(node.operation), node.operation)
        changed = any(id(tensor) in values for tensor in symbolic_tensors((args, kwargs)))
        if changed or operation is not node.operation:
            renewed = call(node, operation, filled(args, values), filled(kwargs, values))
            made = zip(map(id, node.outputs), keras.tree.flatten(renewed), strict=True)
            outputs |= dict(made)
            values |= outputs
    return filled(graph.output, outputs)


@contextlib.contextmanager
def calls_undone_on_error(operations: Iterable[Any]) -> Iterator[None]:
    """Takes back the calls recorded inside the block if it raises."""
    lists = [nodes for each in operations for nodes in (each._inbound_nodes, each._outbound_nodes)]
    lengths = [len(nodes) for nodes in lists]
    try:
        yield
    except Exception:
        for nodes, length in zip(lists, lengths, strict=True):
            del nodes[length:]
        raise

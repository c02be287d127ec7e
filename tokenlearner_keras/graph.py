"""Reads and rewires the graph of a functional Keras model."""

import re
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Returns the calls of a functional model in execution order, without the inputs.

    Calls of its layers in the graphs of other models are left out.
    """
    depths = graph._nodes_by_depth
    return [
        node
        for depth in sorted(depths, reverse=True)
        for node in depths[depth]
        if not node.is_input
    ]


def named_calls(graph: keras.Model) -> Iterator[tuple[str, Node]]:
    """Yields the calls of a graph by their layer's name, numbered if there are several."""
    nodes = graph_calls(graph)
    totals = Counter(node.operation.name for node in nodes)
    seen: Counter[str] = Counter()
    for node in nodes:
        name = node.operation.name
        yield (f"{name}:{seen[name]}" if totals[name] > 1 else name), node
        seen[name] += 1


def all_named_calls(graph: keras.Model) -> Iterator[tuple[str, Node]]:
    """Yields the calls of a graph and of the graphs that are layers of it, by their path."""
    for name, node in named_calls(graph):
        yield name, node
        inner = nested_graph(node.operation)
        if inner is not None:
            yield from ((f"{name}/{path}", call) for path, call in all_named_calls(inner))


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
    """Repeats every call that follows a change and returns the outputs.

    Args:
        graph: A functional model.
        call: Takes a node, an operation and arguments, calls the operation on them.
        tensors: New symbolic tensors by the `id` of those in the graph that they replace as
            inputs of calls; a replaced tensor that is itself an output stays.
        operations: New layers by the `id` of those in the graph that they replace.

    Returns:
        Tensors in the structure of `graph.output`; outputs that follow no change are the same.
    """
    values, operations = dict(tensors or {}), operations or {}
    outputs: dict[int, Any] = {}
    for node in graph_calls(graph):
        args, kwargs = call_arguments(node)
        operation = operations.get(id(node.operation), node.operation)
        changed = any(id(tensor) in values for tensor in symbolic_tensors((args, kwargs)))
        if changed or operation is not node.operation:
            renewed = call(node, operation, filled(args, values), filled(kwargs, values))
            # A stack that was opened makes no outputs that depend on nothing.
            made = zip(map(id, node.outputs), keras.tree.flatten(renewed), strict=False)
            outputs |= dict(made)
            values |= outputs
    return filled(graph.output, outputs)


@contextmanager
def calls_undone_on_error(operations: Iterable[Any]) -> Iterator[None]:
    """Takes back the calls recorded inside the block if it raises."""
    lists = _recorded_calls(operations)
    try:
        yield
    except Exception:
        _shorten(lists)
        raise


@contextmanager
def calls_undone(operations: Iterable[Any]) -> Iterator[None]:
    """Takes back the calls recorded inside the block."""
    lists = _recorded_calls(operations)
    try:
        yield
    finally:
        _shorten(lists)


def _recorded_calls(operations: Iterable[Any]) -> list[tuple[list[Node], int]]:
    """Returns the lists of calls that operations hold, each with its length now."""
    lists = [nodes for each in operations for nodes in (each._inbound_nodes, each._outbound_nodes)]
    return [(nodes, len(nodes)) for nodes in lists]


def _shorten(lists: list[tuple[list[Node], int]]) -> None:
    for nodes, length in lists:
        del nodes[length:]


# Stands for an unknown batch: layers that mix it with the positions change its size.
_TRIAL_BATCH = 2


def checked_call(
    node: Node,
    operation: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    hint: str | None = None,
) -> Any:
    """Calls a layer of a graph again, with other arguments than those of its `node`.

    A symbolic call trusts the output shape that a layer declares. So, where shapes have changed,
    the computation is also traced, without arithmetic.

    Raises:
        ValueError: If the layer cannot take the new shapes; the message names the layer and a fix,
            the `hint` or, without one, that for an inserted TokenLearner.
    """
    try:
        outputs = operation(*args, **kwargs)
    except Exception as error:
        raise _misfit(node, args, kwargs, reason_of(error), hint) from error
    if _shapes((args, kwargs)) != _shapes((node.arguments.args, node.arguments.kwargs)):
        problem = _problem(operation, args, kwargs, outputs)
        # A layer that cannot be traced, or misstated its shape before the change, proves nothing.
        if problem and not _problem(operation, *_original(node)):
            raise _misfit(node, args, kwargs, problem, hint)
    return outputs


def reason_of(error: Exception) -> str:
    """Returns the one line of a Keras error that says what is wrong."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines()]
    frame = ("Exception encountered when calling", "Arguments received by", "•")
    told = [line for line in lines if line and not line.startswith(frame)]
    return told[0].removesuffix(".") if told else type(error).__name__


class _Trial(keras.Operation):
    """Calls an operation on shapes alone, and records no node."""

    def __init__(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(name="trial")
        self.operation = operation
        self.arguments = (args, kwargs)
        self.error: Exception | None = None

    def call(self, *values: Any) -> Any:
        rest = iter(values)
        args, kwargs = keras.tree.map_structure(
            lambda x: next(rest) if isinstance(x, keras.KerasTensor) else x, self.arguments
        )
        try:
            # TensorFlow refuses a scope like "_my_layer" unless there is one around it,
            # and Keras then keeps its name for the variables of all later layers.
            with keras.name_scope("trial"):
                return self.operation(*args, **kwargs)
        except Exception as error:
            self.error = error
            raise


def _problem(
    operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any
) -> str | None:
    """Returns why a call fails, or gives another shape than its symbolic outputs have."""
    trial = _Trial(operation, args, kwargs)
    tensors = [
        keras.KerasTensor(_sized(tensor.shape), dtype=tensor.dtype, sparse=tensor.sparse)
        for tensor in symbolic_tensors((args, kwargs))
    ]
    try:
        traced = symbolic_tensors(trial.compute_output_spec(*tensors))
    except Exception as error:
        return reason_of(trial.error or error)
    for given, stated in zip(traced, symbolic_tensors(outputs), strict=False):
        shape, expected = tuple(given.shape), _sized(stated.shape)
        pairs = zip(shape, expected, strict=True) if len(shape) == len(expected) else [(0, 1)]
        if any(a is not None and b is not None and a != b for a, b in pairs):
            return f"for a batch of {_TRIAL_BATCH} it gives the shape {shape}, not {expected}"
    return None


def _original(node: Node) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    return node.arguments.args, node.arguments.kwargs, node.outputs


def _sized(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Returns a shape with a number for an unknown batch."""
    return (_TRIAL_BATCH, *shape[1:]) if shape and shape[0] is None else tuple(shape)


def _shapes(structure: Any) -> list[tuple[int | None, ...]]:
    return [tuple(tensor.shape) for tensor in symbolic_tensors(structure)]


def _misfit(
    node: Node,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    reason: str,
    hint: str | None,
) -> ValueError:
    before = _shapes((node.arguments.args, node.arguments.kwargs))
    after = _shapes((args, kwargs))
    # Masks that Keras fills in make the old list longer; they are not separate inputs.
    mixed = any(shape in before for shape in after)
    if hint is None and mixed:
        hint = (
            "An input of it does not come from the TokenLearner. If that is a shortcut around "
            "the layer named, name the first layer of the block instead (in a pre-norm block its "
            "normalisation), so that the shortcut carries the tokens; a mask or table of "
            "positions for the old number of tokens must be left out of the model."
        )
    elif hint is None:
        hint = (
            "What follows the TokenLearner must take any number of tokens, in the shape "
            "(batch, tokens, channels), which a convolution, Flatten, Reshape, pooling of grids "
            "or attention with rotary positions (DINOv3) does not. Build the model without its "
            "head (of keras.applications: include_top=False), and on its output put a "
            "TokenLearner, pool over them (GlobalAveragePooling1D), and add a new head."
        )
    name = f"Layer {node.operation.name!r} of type {type(node.operation).__name__}"
    return ValueError(
        f"{name} cannot take the learned tokens. It was called on {_listed(before)}, and now "
        f"would be on {_listed(after)}: {reason}. {hint}"
    )


def _listed(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(str(shape) for shape in dict.fromkeys(shapes))


@contextmanager
def without_weights() -> Iterator[None]:
    """Models built inside have shapes but no values: ViT-L/8 builds in a second.

    Inside, `count_params`, `tk.count_macs`, `tk.paper_gflops` and `summary` work; calling the model
    does not. The models are useless afterwards: on exit, Keras' session is cleared (except the
    dtype policy); otherwise it would allocate the weights later.
    """
    policy = keras.config.dtype_policy()
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        keras.utils.clear_session(free_memory=True)
        keras.config.set_dtype_policy(policy)


def functional_graph(model: Any, purpose: str) -> keras.Model:
    """Returns the graph of a functional or Sequential model; raises ValueError without one."""
    graph = nested_graph(model)
    if graph is None:
        raise ValueError(
            f"{purpose} reads the graph of a functional or Sequential model whose input is "
            f"known. Received: {model!r}. Begin a Sequential model with keras.Input; of a "
            "subclassed model pass the functional models inside. Graphs of Keras 2 are not read."
        )
    return graph

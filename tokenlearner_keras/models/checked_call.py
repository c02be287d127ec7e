"""Calls the layers of a graph on tensors of another shape, or says why one cannot."""

import re
from typing import Any

import keras

from tokenlearner_keras.models.graph import Node
from tokenlearner_keras.models.graph import symbolic_tensors

# Stands for an unknown batch: layers that mix it with the positions change its size.
_TRIAL_BATCH = 2


def checked_call(node: Node, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a layer of a graph again, on other arguments than its node's.

    A symbolic call believes what a layer says about its output's shape. So, where shapes
    have changed, the computation is traced, too, without arithmetic.

    Args:
        node: The call in the graph.
        operation: The layer to call, in most cases the node's own.
        args: Positional arguments with symbolic tensors.
        kwargs: Keyword arguments.

    Raises:
        ValueError: If the layer cannot take the new shapes, with the layer and the cure.
    """
    try:
        outputs = operation(*args, **kwargs)
    except Exception as error:
        raise _misfit(node, args, kwargs, reason_of(error)) from error
    if _shapes((args, kwargs)) != _shapes((node.arguments.args, node.arguments.kwargs)):
        problem = _problem(operation, args, kwargs, outputs)
        # A layer that cannot be traced at all, or misstates its shape anyway, proves nothing.
        if problem and not _problem(operation, *_original(node)):
            raise _misfit(node, args, kwargs, problem)
    return outputs


def reason_of(error: Exception) -> str:
    """Returns the one line of a Keras error that says what is wrong."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines()]
    frame = ("Exception encountered when calling", "Arguments received by", "•")
    told = [line for line in lines if line and not line.startswith(frame)]
    return told[0].removesuffix(".") if told else type(error).__name__


class _Trial(keras.Operation):
    """Calls an operation on values that have shapes only, and records no node."""

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


def _misfit(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], reason: str) -> ValueError:
    before = _shapes((node.arguments.args, node.arguments.kwargs))
    after = _shapes((args, kwargs))
    # Masks that Keras fills in make the old list longer; they are no inputs of their own.
    mixed = any(shape in before for shape in after)
    if mixed:
        cure = (
            "An input of it does not come from the TokenLearner. If that is a shortcut around "
            "the layer named, name the first layer of the block instead (in a pre-norm block its "
            "normalisation), so that the shortcut carries the tokens; a mask or table of "
            "positions for the old number of tokens must be left out of the model."
        )
    else:
        cure = (
            "What follows the TokenLearner must take any number of tokens, in the shape "
            "(batch, tokens, channels), which a convolution, Flatten, Reshape or pooling of "
            "grids does not. Build the model without its head (of keras.applications: "
            "include_top=False), and on its output put a TokenLearner, pool over them "
            "(GlobalAveragePooling1D), and add a new head."
        )
    name = f"Layer {node.operation.name!r} of type {type(node.operation).__name__}"
    return ValueError(
        f"{name} cannot take the learned tokens. It was called on {_listed(before)}, and now "
        f"would be on {_listed(after)}: {reason}. {cure}"
    )


def _listed(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(str(shape) for shape in dict.fromkeys(shapes))

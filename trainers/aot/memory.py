"""Device memory of a compiled step, from XLA's buffer assignment."""

import dataclasses
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes that XLA has set aside for one run of a step.

    Attributes:
        arguments: Weights, optimizer state and the batch.
        results: What does not take the place of an argument.
        temporaries: Activations, gradients and scratch space; places that are used again
            count once.
        constants: Built into the program.
    """

    arguments: int
    results: int
    temporaries: int
    constants: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.arguments + self.results + self.temporaries + self.constants


def compiled_memory(step: Any, *specifications: tf.TensorSpec) -> StepMemory | None:
    """Compiles a step for this machine's device and returns the memory that it takes.

    Args:
        step: A Python function of tensors; variables that it uses count as arguments.
        specifications: Static shapes and types of its arguments.

    Returns:
        Sums over XLA's buffer assignment; None if this backend gives none.
    """
    function = tf.function(step, jit_compile=True)
    # XLA's own description of an executable, with the place of every value.
    stage = "optimized_hlo_proto_serialized"
    try:
        from tensorflow.compiler.xla.service.hlo_pb2 import HloProto

        program = function.experimental_get_compiler_ir(*specifications)(stage=stage)
    # A TPU takes no variables here, and TensorFlow does not promise the description.
    except (ImportError, TypeError, ValueError, tf.errors.OpError):
        return None
    allocations = HloProto.FromString(program).buffer_assignment.buffer_allocations
    return _sum(allocations) if allocations else None


def _sum(allocations: Any) -> StepMemory:
    sizes = {field.name: 0 for field in dataclasses.fields(StepMemory)}
    for allocation in allocations:
        if not allocation.is_thread_local:  # on the stack of a thread of the CPU
            sizes[_kind(allocation)] += allocation.size
    return StepMemory(**sizes)


def _kind(allocation: Any) -> str:
    if allocation.is_entry_computation_parameter:
        return "arguments"
    if allocation.is_constant:
        return "constants"
    return "results" if allocation.maybe_live_out else "temporaries"

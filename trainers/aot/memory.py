"""Reads the device memory of a compiled step from XLA's buffer assignment."""

import dataclasses
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes that XLA has set aside for one run of a step."""

    arguments: int  # weights, optimizer state and the batch
    results: int  # what does not take the place of an argument
    temporaries: int  # activations, gradients and scratch space; reused places count once
    constants: int  # built into the program

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.arguments + self.results + self.temporaries + self.constants


def compiled_memory(step: Any, *specifications: tf.TensorSpec) -> StepMemory | None:
    """Compiles a step for this machine's device and returns the memory that it takes.

    The specifications are the static shapes and types of the step's arguments; variables that it
    uses count as arguments. Returns None if the backend gives no buffer assignment.
    """
    function = tf.function(step, jit_compile=True)
    # XLA's description of an executable, with the place of every value.
    stage = "optimized_hlo_proto_serialized"
    try:
        from tensorflow.compiler.xla.service.hlo_pb2 import HloProto

        program = function.experimental_get_compiler_ir(*specifications)(stage=stage)
    # A TPU accepts no variables here, and TensorFlow does not guarantee the description.
    except (ImportError, TypeError, ValueError, tf.errors.OpError):
        return None
    allocations = HloProto.FromString(program).buffer_assignment.buffer_allocations
    return _sum(allocations) if allocations else None


def _sum(allocations: Any) -> StepMemory:
    sizes = {field.name: 0 for field in dataclasses.fields(StepMemory)}
    for allocation in allocations:
        if not allocation.is_thread_local:  # on the stack of a CPU thread
            sizes[_kind(allocation)] += allocation.size
    return StepMemory(**sizes)


def _kind(allocation: Any) -> str:
    if allocation.is_entry_computation_parameter:
        return "arguments"
    if allocation.is_constant:
        return "constants"
    return "results" if allocation.maybe_live_out else "temporaries"

"""Compiles one replica's train and eval steps, to measure them or for a TPU chip."""

import dataclasses
import math
import re
from collections.abc import Callable
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import tensorflow as tf

from trainers.aot.roofline import Roofline
from trainers.aot.steps import MeasuredSteps
from trainers.aot.steps import StepMemory
from trainers.engines.engine import Specifications
from trainers.engines.tensorflow_engine import TensorFlowEngine
from trainers.utils.errors import TrainingError

_NO_KERNEL = re.compile(r"(\w+) \(No registered")


@dataclasses.dataclass(frozen=True)
class ReplicaProgram:
    """A step of one replica, as serialised StableHLO."""

    code: bytes

    def compile(self, devices: Sequence[Any]) -> Any:
        # Not jax's public interface, hence the exact version in the extra.
        compiler = import_module("jax._src.compiler")
        device_list = import_module("jaxlib._jax").DeviceList
        ir = import_module("jax.extend.mlir.ir")
        mlir = import_module("jax.interpreters.mlir")
        device = devices[0]
        with mlir.make_ir_context():
            module = ir.Module.parse(self.code)
            _remove_copies(module, ir)
            options = compiler.get_compile_options(
                num_replicas=1,
                num_partitions=1,
                device_assignment=[[device.id]],
                backend=device.client,
            )
            return device.client.compile(module, device_list((device,)), options)


@dataclasses.dataclass(frozen=True)
class ReplicaStep:
    """A function of tensors alone, as XLA requires, and their static shapes and types.

    Variables that it uses become arguments, and results, aliased where the step updates them.
    """

    function: Callable[..., Any]
    specifications: tuple[tf.TensorSpec, ...]

    def memory(self) -> StepMemory | None:
        # XLA's description of an executable, with the place of every value.
        stage = "optimized_hlo_proto_serialized"
        try:
            from tensorflow.compiler.xla.service.hlo_pb2 import HloProto

            program = self._compiler_ir()(stage=stage)
        # A TPU accepts no variables here, and TensorFlow does not guarantee the description.
        except (ImportError, TypeError, ValueError, tf.errors.OpError):
            return None
        allocations = HloProto.FromString(program).buffer_assignment.buffer_allocations
        return _sum(allocations) if allocations else None

    def roofline(self) -> Roofline | None:
        return None  # TensorFlow shows the program of a CPU or a GPU, not that of a TPU

    def lower(self, name: str) -> ReplicaProgram:
        lower = self._compiler_ir()
        try:
            # The platform is the CPU's: TensorFlow accepts no variables for an absent TPU.
            program = lower(stage="stablehlo_serialized", platform_name="CPU")
        # XLA's errors arrive as the one or the other.
        except (ValueError, tf.errors.OpError) as error:
            raise TrainingError(
                f"The {name} step does not compile: {_reason(str(error))}. Replace the operation, "
                "or move it to the input pipeline."
            ) from error
        return ReplicaProgram(bytes(program))

    def _compiler_ir(self) -> Callable[..., Any]:
        compiled = tf.function(self.function, jit_compile=True)
        return compiled.experimental_get_compiler_ir(*self.specifications)


class SingleReplicaSteps(MeasuredSteps):
    """The steps that a replica runs on its share of the batch; the engine has one device.

    The loss is divided by the whole batch, but the all-reduce is left out.
    """

    engine: TensorFlowEngine

    def training(self, batch: Specifications) -> ReplicaStep:
        replica_step = self.train_step.compiled.replica_step
        return self._flat(replica_step, batch, tf.TensorSpec((), tf.int64))

    def evaluation(self, batch: Specifications) -> ReplicaStep:
        return self._flat(self.evaluator.replica_step, batch)

    def _bytes(self, variables: Sequence[Any]) -> int:
        return sum(math.prod(each.shape) * tf.as_dtype(each.dtype).size for each in variables)

    def _flat(
        self, replica_step: Callable[..., Any], batch: Specifications, *further: tf.TensorSpec
    ) -> ReplicaStep:
        names = tuple(batch)

        def step(*values: tf.Tensor) -> Any:
            parts = dict(zip(names, values[: len(names)], strict=True))
            return self.engine.strategy.run(replica_step, args=(parts, *values[len(names) :]))

        return ReplicaStep(step, (*batch.values(), *further))


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


def _reason(message: str) -> str:
    names = dict.fromkeys(_NO_KERNEL.findall(message))
    if names:
        return f"XLA has no kernel for {', '.join(names)}"
    return f"XLA says: {message.strip().splitlines()[0].rstrip('.')}"


def _remove_copies(module: Any, ir: Any) -> None:
    """Removes the copies that TensorFlow puts before its results.

    libtpu does not know the operation (`mhlo.copy`, from TensorFlow 2.20 on), which does not change
    the numbers.
    """
    copies = []

    def collect(operation: Any) -> Any:
        if operation.name == "mhlo.copy":
            copies.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(collect)
    for copy in copies:
        copy.results[0].replace_all_uses_with(copy.operands[0])
        copy.erase()

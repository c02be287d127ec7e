"""The steps of a TensorFlow replica as StableHLO programs for one chip."""

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.model_names import ModelConfig
from trainers.data.preprocessing.examples import Preprocessing
from trainers.engines.engine import Specifications
from trainers.engines.tensorflow_engine import TensorFlowEngine
from trainers.lone_replica import LoneReplica
from trainers.tpu_lowering import StepLowering
from trainers.utils.errors import TrainingError

_NO_KERNEL = re.compile(r"(\w+) \(No registered")


@dataclasses.dataclass(frozen=True)
class ReplicaProgram:
    """A step of one replica.

    Attributes:
        code: StableHLO, serialised.
    """

    code: bytes

    def compile(self, devices: Sequence[Any]) -> Any:
        """Returns the executable for one chip; see `trainers.tpu_compiler.Program`."""
        # Below jax's public interface, hence the exact version in the extra.
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


class TensorFlowLowering(StepLowering):
    """The step that a replica of the trainer runs, without the all-reduce.

    Args:
        config: The whole configuration.
        num_classes: Classes of the data.
        chips: Replicas that share the batch.

    Raises:
        ConfigurationError: If a value is out of range, or the batch cannot be shared out.
    """

    scope = "not included: the all-reduce of the gradients"

    def _build(
        self, config: ConfigDict, model_config: ModelConfig, preprocessing: Preprocessing
    ) -> LoneReplica:
        engine = TensorFlowEngine(tf.distribute.OneDeviceStrategy("CPU:0"))
        return LoneReplica(config, model_config, preprocessing, engine)

    def _lower_training(self, batch: Specifications) -> ReplicaProgram:
        return _lower("train", *self._measured.training(batch))

    def _lower_evaluation(self, name: str, batch: Specifications) -> ReplicaProgram:
        return _lower(name, *self._measured.evaluation(batch))


def _lower(name: str, step: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> ReplicaProgram:
    """Returns a function as StableHLO bytecode.

    Variables become arguments and results, aliased where the step updates them. The
    platform is the CPU's: TensorFlow takes no variables for a TPU that is not there.
    """
    compiled = tf.function(step, jit_compile=True)
    lower = compiled.experimental_get_compiler_ir(*specs)
    try:
        program = lower(stage="stablehlo_serialized", platform_name="CPU")
    # What XLA says arrives as the one or the other.
    except (ValueError, tf.errors.OpError) as error:
        raise TrainingError(
            f"The {name} step does not compile: {_reason(str(error))}. Replace the operation, "
            "or move it to the input pipeline."
        ) from error
    return ReplicaProgram(bytes(program))


def _reason(message: str) -> str:
    names = dict.fromkeys(_NO_KERNEL.findall(message))
    if names:
        return f"XLA has no kernel for {', '.join(names)}"
    return f"XLA says: {message.strip().splitlines()[0].rstrip('.')}"


def _remove_copies(module: Any, ir: Any) -> None:
    """Takes out the copies that TensorFlow puts before its results.

    libtpu does not know the operation (`mhlo.copy`, from TensorFlow 2.20 on), and it does
    nothing to the numbers.
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

"""Compiles one replica's train and eval steps, to measure them or for a TPU chip."""

import dataclasses
import math
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.lowering import StepLowering
from trainers.aot.memory import StepMemory
from trainers.aot.memory import compiled_memory
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.preprocessing.examples import Preprocessing
from trainers.engines.engine import Specifications
from trainers.engines.tensorflow_engine import TensorFlowEngine
from trainers.experiment import make_evaluator
from trainers.experiment import make_model
from trainers.experiment import make_train_step
from trainers.utils.errors import TrainingError

#: A function of tensors alone, as XLA requires, and their shapes and types.
FlatStep = tuple[Callable[..., Any], tuple[tf.TensorSpec, ...]]


class SingleReplicaSteps:
    """Builds a model, an optimizer and both steps; `engine` has one device.

    The steps are those that a replica of the trainer runs on its share of the batch. The loss is
    divided by the whole batch, but the all-reduce is left out.
    """

    def __init__(
        self,
        config: ConfigDict,
        model_config: ModelConfig,
        preprocessing: Preprocessing,
        engine: TensorFlowEngine,
    ) -> None:
        self._strategy = engine.strategy
        with engine.scope():
            model, optimizer = make_model(config, model_config, NO_TRAINING)
        self._train_step = make_train_step(config, model, optimizer, engine)
        self._evaluator = make_evaluator(config, model, optimizer, engine, preprocessing)
        self.weight_bytes = _bytes(model.variables)
        self.optimizer_bytes = _bytes(optimizer.variables)
        self.gradient_bytes = _bytes(model.trainable_variables)

    def training(self, batch: Specifications) -> FlatStep:
        """Returns the step as a function of a replica's batch and the step's number."""
        return self._flat(
            self._train_step.compiled.replica_step, batch, tf.TensorSpec((), tf.int64)
        )

    def evaluation(self, batch: Specifications) -> FlatStep:
        """Returns the step as a function of a replica's batch."""
        return self._flat(self._evaluator.replica_step, batch)

    def training_memory(self, batch: Specifications) -> StepMemory | None:
        step, specifications = self.training(batch)
        return compiled_memory(step, *specifications)

    def evaluation_memory(self, batch: Specifications) -> StepMemory | None:
        step, specifications = self.evaluation(batch)
        return compiled_memory(step, *specifications)

    def _flat(
        self, replica_step: Callable[..., Any], batch: Specifications, *further: tf.TensorSpec
    ) -> FlatStep:
        names = tuple(batch)

        def step(*values: tf.Tensor) -> Any:
            parts = dict(zip(names, values[: len(names)], strict=True))
            return self._strategy.run(replica_step, args=(parts, *values[len(names) :]))

        return step, (*batch.values(), *further)


def _bytes(variables: Iterable[Any]) -> int:
    return sum(
        math.prod(variable.shape) * int(tf.as_dtype(variable.dtype).size) for variable in variables
    )


_NO_KERNEL = re.compile(r"(\w+) \(No registered")


@dataclasses.dataclass(frozen=True)
class ReplicaProgram:
    """A step of one replica, as serialised StableHLO."""

    code: bytes

    def compile(self, devices: Sequence[Any]) -> Any:
        """Returns the executable for the first chip."""
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


class TensorFlowLowering(StepLowering):
    """The step that a replica of the trainer runs, without the all-reduce."""

    scope = "not included: the all-reduce of the gradients"

    def _build(
        self, config: ConfigDict, model_config: ModelConfig, preprocessing: Preprocessing
    ) -> SingleReplicaSteps:
        engine = TensorFlowEngine(tf.distribute.OneDeviceStrategy("CPU:0"))
        return SingleReplicaSteps(config, model_config, preprocessing, engine)

    def _lower_training(self, batch: Specifications) -> ReplicaProgram:
        return _lower("train", *self._measured.training(batch))

    def _lower_evaluation(self, name: str, batch: Specifications) -> ReplicaProgram:
        return _lower(name, *self._measured.evaluation(batch))


def _lower(name: str, step: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> ReplicaProgram:
    """Returns a function as StableHLO bytecode.

    Variables become arguments and results, aliased where the step updates them. The platform is the
    CPU's: TensorFlow accepts no variables for an absent TPU.
    """
    compiled = tf.function(step, jit_compile=True)
    lower = compiled.experimental_get_compiler_ir(*specs)
    try:
        program = lower(stage="stablehlo_serialized", platform_name="CPU")
    # XLA's errors arrive as the one or the other.
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

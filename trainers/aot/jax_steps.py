"""Compiles the train and eval steps of the JAX engine, to measure them or for a TPU slice."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.lowering import StepLowering
from trainers.aot.memory import StepMemory
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.preprocessing.examples import Preprocessing
from trainers.engines.engine import Specifications
from trainers.engines.hosts import Hosts
from trainers.engines.jax_engine import JaxEngine
from trainers.engines.jax_sharding import JaxLayout
from trainers.experiment import make_evaluator
from trainers.experiment import make_model
from trainers.experiment import make_train_step


class JaxMeasuredSteps:
    """Builds model, optimizer and both steps, and compiles the steps without running them.

    They are the whole steps on all devices, communication included. The devices may be only
    described, as those of an absent TPU. All sizes are in bytes on one device.
    """

    def __init__(
        self,
        engine: JaxEngine,
        config: ConfigDict,
        model_config: ModelConfig,
        preprocessing: Preprocessing,
    ) -> None:
        self._engine = engine
        self._model, optimizer = make_model(config, model_config, NO_TRAINING)
        self._train_step = make_train_step(config, self._model, optimizer, engine)
        self._evaluator = make_evaluator(config, self._model, optimizer, engine, preprocessing)
        layout = engine.layout
        self.weight_bytes = layout.device_bytes(self._model.variables)
        self.optimizer_bytes = layout.device_bytes(optimizer.variables)
        self.gradient_bytes = layout.device_bytes(self._model.trainable_variables)

    def lower_training(self, batch: Specifications) -> jax.stages.Lowered:
        """Returns the training step, lowered for a device's share of a batch."""
        batch = {name: batch[name] for name in ("image", "target")}
        lowered: jax.stages.Lowered = self._train_step.compiled.lower(self._global(batch))
        return lowered

    def lower_evaluation(self, batch: Specifications) -> jax.stages.Lowered:
        """Returns the evaluation step, lowered for a device's share of a batch."""
        layout = self._engine.layout
        values = [
            jax.ShapeDtypeStruct(
                tuple(each.shape), each.dtype, sharding=layout.sharding_of(each.shape)
            )
            for each in self._model.variables
        ]
        batch = {name: batch[name] for name in ("image", "target", "label", "mask")}
        jitted = self._engine.jitted_evaluation(self._model, self._evaluator.replica_step)
        lowered: jax.stages.Lowered = jitted.lower(values, self._global(batch))
        return lowered

    def training_memory(self, batch: Specifications) -> StepMemory | None:
        return _memory(self.lower_training(batch).compile())

    def evaluation_memory(self, batch: Specifications) -> StepMemory | None:
        return _memory(self.lower_evaluation(batch).compile())

    def _global(self, batch: Specifications) -> dict[str, jax.ShapeDtypeStruct]:
        devices = self._engine.num_replicas

        def whole(specification: tf.TensorSpec) -> jax.ShapeDtypeStruct:
            rows, *others = specification.shape
            dtype = jax.dtypes.canonicalize_dtype(np.dtype(specification.dtype.as_numpy_dtype))
            return jax.ShapeDtypeStruct(
                (rows * devices, *others), dtype, sharding=self._engine.layout.batch
            )

        return {name: whole(specification) for name, specification in batch.items()}


def _memory(compiled: Any) -> StepMemory | None:
    statistics = compiled.memory_analysis()
    if statistics is None:
        return None
    return StepMemory(
        arguments=statistics.argument_size_in_bytes,
        results=statistics.output_size_in_bytes - statistics.alias_size_in_bytes,
        temporaries=statistics.temp_size_in_bytes,
        constants=statistics.generated_code_size_in_bytes,
    )


@dataclasses.dataclass(frozen=True)
class JaxProgram:
    """A lowered step of all chips, which knows its devices."""

    lowered: jax.stages.Lowered

    def compile(self, devices: Sequence[Any]) -> Any:
        del devices  # they are in the arguments' shardings
        return self.lowered.compile().runtime_executable()


class JaxLowering(StepLowering):
    """The whole, partitioned steps on all chips, with the communication between them.

    The chips may be absent. `batch_axis` and `model_axis` are as the flags of these names.
    """

    def __init__(
        self,
        config: ConfigDict,
        num_classes: int,
        devices: Sequence[Any],
        batch_axis: int | None = None,
        model_axis: int = 1,
    ) -> None:
        self._layout = JaxLayout(devices, batch_axis, model_axis)
        self.model_axis = model_axis
        first_host = devices[0].process_index
        self.largest_model_axis = sum(each.process_index == first_host for each in devices)
        shared = f", each copy of the weights on {model_axis} of them" if model_axis > 1 else ""
        self.scope = f"the step of all {len(devices)} chips{shared}"
        super().__init__(config, num_classes, len(devices))

    def _build(
        self, config: ConfigDict, model_config: ModelConfig, preprocessing: Preprocessing
    ) -> JaxMeasuredSteps:
        engine = JaxEngine(self._layout, Hosts())
        return JaxMeasuredSteps(engine, config, model_config, preprocessing)

    def _lower_training(self, batch: Specifications) -> JaxProgram:
        return JaxProgram(self._measured.lower_training(batch))

    def _lower_evaluation(self, name: str, batch: Specifications) -> JaxProgram:
        del name  # an error of JAX here is a mistake of ours
        return JaxProgram(self._measured.lower_evaluation(batch))

"""Compiles the train and eval steps of the JAX engine, to measure them or for a TPU slice."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf

from trainers.aot.steps import MeasuredSteps
from trainers.aot.steps import StepMemory
from trainers.aot.steps import step_memory
from trainers.engines.engine import Specifications
from trainers.engines.jax_engine import ON_THE_DEVICE
from trainers.engines.jax_engine import JaxEngine


@dataclasses.dataclass(frozen=True)
class JaxStep:
    """A lowered step of all devices, which it knows."""

    lowered: jax.stages.Lowered

    def memory(self) -> StepMemory | None:
        statistics = self.lowered.compile().memory_analysis()
        return None if statistics is None else step_memory(statistics)

    def lower(self, name: str) -> "JaxStep":
        del name  # an error of JAX here is a mistake of ours
        return self

    def compile(self, devices: Sequence[Any]) -> Any:
        del devices  # they are in the arguments' shardings
        return self.lowered.compile().runtime_executable()


class JaxMeasuredSteps(MeasuredSteps):
    """The whole, partitioned steps on all devices, with the communication between them.

    The devices may be only described, as those of an absent TPU.
    """

    engine: JaxEngine

    def training(self, batch: Specifications) -> JaxStep:
        return JaxStep(self.train_step.compiled.lower(self._global(batch)))

    def evaluation(self, batch: Specifications) -> JaxStep:
        values = [self.engine.layout.abstract(variable) for variable in self.model.variables]
        jitted = self.engine.jitted_evaluation(self.model, self.evaluator.replica_step)
        return JaxStep(jitted.lower(values, self._global(batch)))

    def _bytes(self, variables: Sequence[Any]) -> int:
        return self.engine.layout.device_bytes(variables)

    def _global(self, batch: Specifications) -> dict[str, jax.ShapeDtypeStruct]:
        def whole(specification: tf.TensorSpec) -> jax.ShapeDtypeStruct:
            rows, *others = specification.shape
            dtype = jax.dtypes.canonicalize_dtype(np.dtype(specification.dtype.as_numpy_dtype))
            return jax.ShapeDtypeStruct(
                (rows * self.engine.num_replicas, *others), dtype, sharding=self.engine.layout.batch
            )

        return {name: whole(batch[name]) for name in ON_THE_DEVICE if name in batch}

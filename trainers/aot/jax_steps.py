"""Compiles the train and eval steps of the JAX engine, to measure them or for a TPU slice."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
import tensorflow as tf

from trainers.aot.cost import program_cost
from trainers.aot.roofline import Roofline
from trainers.aot.steps import MeasuredSteps
from trainers.aot.steps import StepMemory
from trainers.aot.steps import step_memory
from trainers.aot.topology import generation_of
from trainers.engines.engine import Specifications
from trainers.engines.jax_engine import ON_THE_DEVICE
from trainers.engines.jax_engine import JaxEngine


@dataclasses.dataclass(frozen=True)
class JaxStep:
    """A lowered step of all devices, which it knows."""

    lowered: jax.stages.Lowered
    device_kind: str
    examples: int  # of a device

    @cached_property
    def _compiled(self) -> jax.stages.Compiled:
        return self.lowered.compile()

    def memory(self) -> StepMemory | None:
        statistics = self._compiled.memory_analysis()
        return None if statistics is None else step_memory(statistics)

    def roofline(self) -> Roofline | None:
        generation = generation_of(self.device_kind)
        if generation is None:
            return None
        return Roofline(program_cost(self._compiled.as_text()), generation, self.examples)

    def lower(self, name: str) -> "JaxStep":
        del name  # an error of JAX here is a mistake of ours
        return self

    def compile(self, devices: Sequence[Any]) -> Any:
        del devices  # they are in the arguments' shardings
        return self._compiled.runtime_executable()


class JaxMeasuredSteps(MeasuredSteps):
    """The whole, partitioned steps on all devices, with the communication between them.

    The devices may be only described, as those of an absent TPU.
    """

    engine: JaxEngine

    def training(self, batch: Specifications) -> JaxStep:
        return self._step(self.train_step.compiled.lower(self._global(batch)), batch)

    def evaluation(self, batch: Specifications) -> JaxStep:
        values = [self.engine.layout.abstract(variable) for variable in self.model.variables]
        jitted = self.engine.jitted_evaluation(self.model, self.evaluator.replica_step)
        return self._step(jitted.lower(values, self._global(batch)), batch)

    def _step(self, lowered: jax.stages.Lowered, batch: Specifications) -> JaxStep:
        device = self.engine.layout.mesh.devices.flat[0]
        return JaxStep(lowered, device.device_kind, batch["image"].shape[0])

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

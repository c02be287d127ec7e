"""The steps of a configuration compiled by JAX, to see what they take."""

from typing import TYPE_CHECKING
from typing import Any

import jax
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.model_names import ModelConfig
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.preprocessing.examples import Preprocessing
from trainers.experiment import make_evaluator
from trainers.experiment import make_model
from trainers.experiment import make_train_step
from trainers.step_memory import StepMemory

if TYPE_CHECKING:
    from trainers.engines.jax_engine import JaxEngine

Specifications = dict[str, tf.TensorSpec]


class JaxMeasuredSteps:
    """Builds model, optimizer and both steps, and compiles the steps without running them.

    They are the whole steps on all devices, with what goes between these. The devices may be
    only described ones, of a TPU that is not there.

    Args:
        engine: Has the devices.
        config: The whole configuration.
        model_config: From `make_model_config`.
        preprocessing: From `make_preprocessing`.

    Attributes:
        weight_bytes: Size of the model's variables on a device.
        optimizer_bytes: Size of the optimizer's state on a device.
        gradient_bytes: Size of a gradient of all weights on a device.
    """

    def __init__(
        self,
        engine: "JaxEngine",
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
        """Returns the training step, lowered.

        Args:
            batch: A device's share, as `TrainStep` takes it.
        """
        batch = {name: batch[name] for name in ("image", "target")}
        lowered: jax.stages.Lowered = self._train_step.compiled.lower(self._global(batch))
        return lowered

    def lower_evaluation(self, batch: Specifications) -> jax.stages.Lowered:
        """Returns the evaluation step, lowered.

        Args:
            batch: A device's share, as `Evaluator.replica_step` takes it.
        """
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
        """Returns the memory of a device in a training step."""
        return _memory(self.lower_training(batch).compile())

    def evaluation_memory(self, batch: Specifications) -> StepMemory | None:
        """Returns the memory of a device in an evaluation step."""
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

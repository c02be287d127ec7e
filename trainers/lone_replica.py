"""The steps of a replica that is alone, to be compiled and not run."""

import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.model_names import ModelConfig
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.preprocessing.examples import Preprocessing
from trainers.experiment import make_evaluator
from trainers.experiment import make_model
from trainers.experiment import make_train_step
from trainers.step_memory import StepMemory
from trainers.step_memory import compiled_memory

if TYPE_CHECKING:
    from trainers.engines.tensorflow_engine import TensorFlowEngine

#: A function of tensors alone, as XLA wants it, and what these are.
FlatStep = tuple[Callable[..., Any], tuple[tf.TensorSpec, ...]]
Specifications = Mapping[str, tf.TensorSpec]


class LoneReplica:
    """Builds model, optimizer and both steps of their own, and hands the steps out.

    They are what a replica of the trainer runs on its share of the batch, with the loss
    divided by the whole batch. Only the all-reduce is left out: a replica that is alone has
    none.

    Args:
        config: The whole configuration.
        model_config: From `make_model_config`.
        preprocessing: From `make_preprocessing`.
        engine: Of one device, where the variables are.

    Attributes:
        weight_bytes: Size of the model's variables.
        optimizer_bytes: Size of the optimizer's state.
        gradient_bytes: Size of a gradient of all weights.
    """

    def __init__(
        self,
        config: ConfigDict,
        model_config: ModelConfig,
        preprocessing: Preprocessing,
        engine: "TensorFlowEngine",
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
        """Returns the training step.

        Args:
            batch: The replica's share, as `TensorFlowTraining.replica_step` takes it.

        Returns:
            A function of the batch's tensors and the step's number, and their shapes and
            types.
        """
        return self._flat(
            self._train_step.compiled.replica_step, batch, tf.TensorSpec((), tf.int64)
        )

    def evaluation(self, batch: Specifications) -> FlatStep:
        """Returns the evaluation step.

        Args:
            batch: The replica's share, as `Evaluator.replica_step` takes it.

        Returns:
            A function of the batch's tensors, and their shapes and types.
        """
        return self._flat(self._evaluator.replica_step, batch)

    def training_memory(self, batch: Specifications) -> StepMemory | None:
        """Returns the memory of the training step as XLA lays it out."""
        step, specifications = self.training(batch)
        return compiled_memory(step, *specifications)

    def evaluation_memory(self, batch: Specifications) -> StepMemory | None:
        """Returns the memory of the evaluation step as XLA lays it out."""
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

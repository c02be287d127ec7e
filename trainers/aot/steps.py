"""The steps of a configuration, in a separate model, to be compiled without running them."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any
from typing import Protocol

from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.roofline import Roofline
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.preprocessing.examples import Preprocessing
from trainers.engines.engine import Engine
from trainers.engines.engine import Specifications
from trainers.experiment import make_evaluator
from trainers.experiment import make_model
from trainers.experiment import make_train_step


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes of a device that XLA has set aside for one run of a step."""

    arguments: int  # weights, optimizer state and the batch
    results: int  # what does not take the place of an argument
    temporaries: int  # activations, gradients and scratch space; reused places count once
    constants: int  # built into the program

    @property
    def total(self) -> int:
        return self.arguments + self.results + self.temporaries + self.constants


def step_memory(statistics: Any) -> StepMemory:
    """Returns the memory of an executable from jaxlib's `CompiledMemoryStats`."""
    return StepMemory(
        arguments=statistics.argument_size_in_bytes,
        results=statistics.output_size_in_bytes - statistics.alias_size_in_bytes,
        temporaries=statistics.temp_size_in_bytes,
        constants=statistics.generated_code_size_in_bytes,
    )


class Program(Protocol):
    """A step that a compiler can take."""

    def compile(self, devices: Sequence[Any]) -> Any:
        """Compiles the step for all chips of the slice; returns the executable of jaxlib."""


class Step(Protocol):
    """A step for batches of one shape."""

    def memory(self) -> StepMemory | None:
        """Compiles it for the devices in use; None if the backend does not tell its memory."""

    def roofline(self) -> Roofline | None:
        """Bounds it on the devices in use; None if their peak rates are not known."""

    def lower(self, name: str) -> Program:
        """Lowers it for a TPU, or raises a `TrainingError` with its `name`."""


class MeasuredSteps(abc.ABC):
    """Builds model, optimizer and both steps on an engine; all sizes are in bytes on a device."""

    def __init__(
        self,
        engine: Engine,
        config: ConfigDict,
        model_config: ModelConfig,
        preprocessing: Preprocessing,
    ) -> None:
        self.engine = engine
        with engine.scope():
            self.model, optimizer = make_model(config, model_config, NO_TRAINING)
        # The data say what they are; the program is the same for any.
        weights = None if config.class_weights is None else (1.0,) * model_config.num_classes
        self.train_step = make_train_step(config, self.model, optimizer, engine, weights)
        self.evaluator = make_evaluator(config, self.model, optimizer, engine, preprocessing)
        self.weight_bytes = self._bytes(self.model.variables)
        self.optimizer_bytes = self._bytes(optimizer.variables)
        self.gradient_bytes = self._bytes(self.model.trainable_variables)

    @abc.abstractmethod
    def training(self, batch: Specifications) -> Step:
        """Returns the training step for a replica's share of a batch."""

    @abc.abstractmethod
    def evaluation(self, batch: Specifications) -> Step:
        """Returns the evaluation step for a replica's share of a batch."""

    @abc.abstractmethod
    def _bytes(self, variables: Sequence[Any]) -> int: ...

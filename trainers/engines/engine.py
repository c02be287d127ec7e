"""The interface of an engine: devices, batches on them, and how steps are compiled and run."""

import abc
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol

import tensorflow as tf
from numpy.typing import NDArray

from trainers.engines.hosts import Hosts

if TYPE_CHECKING:
    import keras


Batch = dict[str, Any]
Specifications = dict[str, tf.TensorSpec]


class StepFunctions(Protocol):
    """The maths of a training step in Keras operations, see `trainers.steps.train_step`.

    Attributes:
        model: The Keras model.
        optimizer: Built for the model's variables.
        gradient_accumulation_steps: Micro-batches that a replica cuts its share into.
        jit_compile: Whether XLA compiles loss and gradients on TensorFlow.
    """

    model: "keras.Model"
    optimizer: "keras.optimizers.Optimizer"
    gradient_accumulation_steps: int
    jit_compile: bool

    def loss_and_sums(self, images: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the loss to differentiate, and sums over these examples."""

    def update(self, gradients: list[Any]) -> Any:
        """Clips and applies the global batch's gradients; returns their norm before clipping."""

    def seeds(self, stream: Any, dtype: str) -> list[tuple["keras.Variable", Any]]:
        """Returns the states that the model's random generators start a pass with."""


class Training(Protocol):
    """The compiled steps of a training."""

    def run(self, batches: Iterator[Any], first_step: int, num_steps: int) -> dict[str, float]:
        """Runs steps and returns their sums; see `TrainStep.run`."""

    def whole(self, batch: Any) -> tuple[Any, Any]:
        """Returns images and targets of all replicas of this host, for inspection."""

    def gradients(self, images: Any, targets: Any, step: int) -> list[Any]:
        """Returns the gradients of one pass, operation by operation.

        Args:
            images: From `whole`.
            targets: From `whole`.
            step: Steps done before.
        """


class Engine(abc.ABC):
    """Runs the trainer's steps on the devices of one backend of Keras.

    `TrainStep` and `Evaluator` define the maths of a step in `keras.ops`. An engine compiles it,
    sums over the devices and distributes the batches.

    Attributes:
        name: As `--engine`.
        hosts: The processes that train together.
        num_replicas: Parts of equal size that a global batch is cut into.
    """

    name: str
    hosts: Hosts
    num_replicas: int

    @abc.abstractmethod
    def describe(self) -> str:
        """Returns one line: how the work is distributed, and where."""

    @abc.abstractmethod
    def scope(self) -> AbstractContextManager[Any]:
        """Returns the context to build model and optimizer in."""

    @abc.abstractmethod
    def batches(self, make_dataset: Callable[..., tf.data.Dataset]) -> Any:
        """Returns global batches on the devices, to be iterated over.

        Args:
            make_dataset: Called with `num_hosts`, `host_index` and `replicas_per_host`;
                returns this host's dataset, of which each element is the share of a replica.
        """

    @abc.abstractmethod
    def training(self, step: StepFunctions) -> Training:
        """Compiles a training step.

        Raises:
            ConfigurationError: If this engine cannot run it.
        """

    @abc.abstractmethod
    def evaluation(
        self,
        model: "keras.Model",
        function: Callable[[Batch], Batch],
        *,
        per_example: bool = False,
    ) -> Callable[[Any], dict[str, NDArray[Any]]]:
        """Compiles a function of a batch.

        Args:
            model: The function reads its variables, with their values at each call.
            function: Returns sums over the examples of its share of a batch.
            per_example: Whether it returns one row per example instead of sums.

        Returns:
            A function from a batch of `batches` to the sums over all its examples, or to all rows.
        """

    @abc.abstractmethod
    def start_profile(self, directory: str) -> None:
        """Starts a TensorBoard profile."""

    @abc.abstractmethod
    def stop_profile(self) -> None:
        """Ends the profile and writes it."""

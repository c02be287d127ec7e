"""The interface of an engine: devices, arrays and batches on them, steps compiled and run."""

import abc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.engines.hosts import Hosts

Batch = dict[str, Any]
Specifications = dict[str, tf.TensorSpec]
EXAMPLE_SUMS = ("loss", "correct", "num_examples")
STEP_SUMS = (*EXAMPLE_SUMS, "gradient_norm", "data_wait")


class StepFunctions(Protocol):
    """The maths of a training step in Keras operations; see `TrainStep`, which has all of it."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    gradient_accumulation_steps: int
    jit_compile: bool

    def num_tokens_at(self, step: int) -> int | None:
        """Returns the learned tokens of a step, None for all: a number for each compiled step."""

    def loss_and_sums(
        self, images: Any, targets: Any, num_tokens: int | None
    ) -> tuple[Any, dict[str, Any]]:
        """Returns the loss to differentiate, and sums over these examples."""

    def update(self, gradients: list[Any]) -> Any:
        """Clips and applies the global batch's gradients; returns their norm before clipping."""

    def seeds(self, stream: Any, dtype: str) -> list[tuple[keras.Variable, Any]]:
        """Returns the states that the model's random generators start a pass with."""


class Training(Protocol):
    """The compiled steps of a training."""

    def run(self, batches: Iterator[Any], first_step: int, num_steps: int) -> dict[str, float]:
        """Runs steps and returns their sums; see `TrainStep.run`."""

    def whole(self, batch: Any) -> tuple[Any, Any]:
        """Returns images and targets of all replicas of this host, for inspection."""

    def gradients(self, images: Any, targets: Any, step: int) -> list[Any]:
        """Returns the gradients of one pass over a `whole` batch, operation by operation."""


class Engine(abc.ABC):
    """Runs the trainer's steps on the devices of one backend of Keras.

    `TrainStep` and `Evaluator` define the maths in `keras.ops`. An engine compiles it, sums over
    the devices and distributes the batches.
    """

    name: str  # as `--engine`
    hosts: Hosts
    num_replicas: int  # parts of equal size that a global batch is cut into

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
        model: keras.Model,
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


def to_numpy(value: Any) -> NDArray[Any]:
    """Returns a copy of a variable or tensor, whole even if it is sharded over devices.

    If the array spans several hosts, this one must hold every part.
    """
    if keras.backend.backend() != "jax":
        return np.array(value.numpy())
    if isinstance(value, keras.Variable):
        value = value.value
    if getattr(value, "is_fully_addressable", True):
        return np.array(value)
    if value.is_fully_replicated:
        return np.array(value.addressable_data(0))
    whole = np.empty(value.shape, value.dtype)
    for shard in value.addressable_shards:
        whole[shard.index] = shard.data
    return whole


def make_whole(variables: Iterable[keras.Variable]) -> None:
    """Makes each variable whole on this host: Keras would miss the parts on other hosts."""
    for variable in variables:
        if not getattr(variable.value, "is_fully_addressable", True):
            variable.assign(to_numpy(variable))

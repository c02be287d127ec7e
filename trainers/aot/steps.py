"""Compiles the steps of a configuration on the engine in use, without running them."""

from collections.abc import Sequence
from typing import Any
from typing import Protocol

import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.lowering import StepLowering
from trainers.aot.memory import StepMemory
from trainers.data.preprocessing.examples import Preprocessing
from trainers.engines.engine import Engine
from trainers.engines.engine import Specifications
from trainers.engines.flags import check_axes
from trainers.engines.flags import check_backend


class MeasuredSteps(Protocol):
    """Steps compiled only to measure them, in a separate model; all sizes are on one device."""

    @property
    def weight_bytes(self) -> int: ...

    @property
    def optimizer_bytes(self) -> int: ...

    def training_memory(self, batch: Specifications) -> StepMemory | None:
        """Returns a training step's memory for a replica's share of a batch; None if unknown."""

    def evaluation_memory(self, batch: Specifications) -> StepMemory | None:
        """Returns an evaluation step's memory for a replica's share of a batch; None if unknown."""


def measured_steps(
    engine: Engine, config: ConfigDict, model_config: ModelConfig, preprocessing: Preprocessing
) -> MeasuredSteps:
    """Returns the steps of a configuration as the engine of the training runs them."""
    # Only the engine in use is sure to be installed.
    if engine.name == "jax":
        from trainers.aot.jax_steps import JaxMeasuredSteps
        from trainers.engines.jax_engine import JaxEngine

        assert isinstance(engine, JaxEngine)
        return JaxMeasuredSteps(engine, config, model_config, preprocessing)

    from trainers.aot.tensorflow_steps import SingleReplicaSteps
    from trainers.engines.tensorflow_engine import TensorFlowEngine

    assert isinstance(engine, TensorFlowEngine)
    device = engine.strategy.extended.worker_devices[0]
    single = TensorFlowEngine(tf.distribute.OneDeviceStrategy(device))
    return SingleReplicaSteps(config, model_config, preprocessing, single)


def make_lowering(
    config: ConfigDict,
    num_classes: int,
    devices: Sequence[Any],
    batch_axis: int | None = None,
    model_axis: int = 1,
) -> StepLowering:
    """Returns the steps of a configuration as the engine of Keras' backend runs them.

    Raises:
        ConfigurationError: If a value is out of range, the batch cannot be shared out, or the axes
            do not fit the slice.
    """
    if check_backend() == "tensorflow":
        check_axes(batch_axis, model_axis)
        from trainers.aot.tensorflow_steps import TensorFlowLowering

        return TensorFlowLowering(config, num_classes, len(devices))
    from trainers.aot.jax_steps import JaxLowering

    return JaxLowering(config, num_classes, devices, batch_axis, model_axis)

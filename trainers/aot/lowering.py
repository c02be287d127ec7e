"""Makes the steps of a configuration, for the engine in use or for the chips of a slice."""

from collections.abc import Callable
from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.steps import MeasuredSteps
from trainers.aot.steps import Program
from trainers.aot.tensorflow_steps import SingleReplicaSteps
from trainers.data.pipeline import check_batch_size
from trainers.data.pipeline import evaluation_batch_size
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.examples import num_views
from trainers.engines.engine import Engine
from trainers.engines.engine import Specifications
from trainers.engines.flags import check_axes
from trainers.engines.flags import check_backend
from trainers.engines.hosts import Hosts
from trainers.engines.tensorflow_engine import TensorFlowEngine
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing


def measured_steps(
    engine: Engine, config: ConfigDict, model_config: ModelConfig, preprocessing: Preprocessing
) -> MeasuredSteps:
    """Returns the steps as an engine runs them: on TensorFlow one replica's, on JAX the whole."""
    if isinstance(engine, TensorFlowEngine):
        device = engine.strategy.extended.worker_devices[0]
        single = TensorFlowEngine(tf.distribute.OneDeviceStrategy(device))
        return SingleReplicaSteps(single, config, model_config, preprocessing)
    # Only the engine in use is sure to be installed.
    from trainers.aot.jax_steps import JaxMeasuredSteps

    return JaxMeasuredSteps(engine, config, model_config, preprocessing)


class StepLowering:
    """Builds the steps of a configuration, and lowers them without running them.

    Attributes:
        examples: Examples of a chip in a step.
        state_bytes: Size of weights and optimizer state on a chip.
        scope: The part of the step that the programs cover, in words.
        largest_model_axis: Chips that could share one copy of weights and optimizer state; 1 if the
            engine cannot share a copy.
    """

    def __init__(
        self,
        config: ConfigDict,
        num_classes: int,
        chips: int,
        engine: Engine,
        scope: str,
        largest_model_axis: int = 1,
    ) -> None:
        accumulation = config.gradient_accumulation_steps
        check_batch_size(
            config.batch_size, {"chips": chips, "gradient_accumulation_steps": accumulation}
        )
        model_config = make_model_config(config, num_classes)
        preprocessing = make_preprocessing(config, model_config)
        self._steps = measured_steps(engine, config, model_config, preprocessing)
        self.scope = scope
        self.largest_model_axis = largest_model_axis
        self.examples = config.batch_size // chips
        self.gradient_bytes = self._steps.gradient_bytes
        self.optimizer_bytes = self._steps.optimizer_bytes
        self.state_bytes = self.optimizer_bytes + self._steps.weight_bytes
        videos = evaluation_batch_size(config.batch_size, preprocessing, chips, views=True)
        self._videos = videos // chips
        self._num_views = num_views(preprocessing)
        self._num_classes = num_classes
        self._input_shape = model_config.input_shape

    def train(self) -> Program:
        """Returns the train step, or raises a `TrainingError` if it cannot be lowered."""
        return self._steps.training(self._batch(self.examples)).lower("train")

    @property
    def evaluations(self) -> dict[str, Callable[[], Program]]:
        """The eval step by name, with that of the test where a video has several views."""
        steps: dict[str, Callable[[], Program]] = {}
        steps["eval"] = partial(self._evaluate, "eval", self.examples)
        if self._num_views > 1:
            steps["test"] = partial(self._evaluate, "test", self._videos, self._num_views)
        return steps

    def evaluated(self, name: str) -> int:
        """Returns the examples of a chip in one of the `evaluations`."""
        return self._videos if name == "test" else self.examples

    def _evaluate(self, name: str, examples: int, *views: int) -> Program:
        batch = {
            **self._batch(examples, *views),
            "label": tf.TensorSpec((examples,), tf.int64),
            "mask": tf.TensorSpec((examples,), tf.float32),
        }
        return self._steps.evaluation(batch).lower(name)

    def _batch(self, examples: int, *views: int) -> Specifications:
        return {
            "image": tf.TensorSpec((examples, *views, *self._input_shape), tf.uint8),
            "target": tf.TensorSpec((examples, self._num_classes), tf.float32),
        }


def make_lowering(
    config: ConfigDict,
    num_classes: int,
    devices: Sequence[Any],
    batch_axis: int | None = None,
    model_axis: int = 1,
) -> StepLowering:
    """Returns the steps as the engine of Keras' backend runs them on chips, which may be absent."""
    chips = len(devices)
    if check_backend() == "tensorflow":
        check_axes(batch_axis, model_axis)
        single = TensorFlowEngine(tf.distribute.OneDeviceStrategy("CPU:0"))
        scope = "not included: the all-reduce of the gradients"
        return StepLowering(config, num_classes, chips, single, scope)
    from trainers.engines.jax_engine import JaxEngine
    from trainers.engines.jax_sharding import JaxLayout

    engine = JaxEngine(JaxLayout(devices, batch_axis, model_axis), Hosts())
    shared = f", each copy of the weights on {model_axis} of them" if model_axis > 1 else ""
    scope = f"the step of all {chips} chips{shared}"
    first_host = devices[0].process_index
    of_a_host = sum(each.process_index == first_host for each in devices)
    return StepLowering(config, num_classes, chips, engine, scope, largest_model_axis=of_a_host)

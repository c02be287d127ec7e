"""The train and eval steps of a configuration as StableHLO programs for one chip."""

import re
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.model_names import ModelConfig
from trainers.data.batch_size import check_batch_size
from trainers.data.batch_size import evaluation_batch_size
from trainers.data.example_preprocessing import num_views
from trainers.engines.tensorflow_engine import TensorFlowEngine
from trainers.errors import TrainingError
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing
from trainers.lone_replica import LoneReplica

_NO_KERNEL = re.compile(r"(\w+) \(No registered")


class StepLowering:
    """Builds model, optimizer and both steps, and lowers the steps without running them.

    What is lowered is the step that a replica of the trainer runs, without the all-reduce.

    Args:
        config: The whole configuration.
        num_classes: Classes of the data.
        chips: Replicas that share the batch.

    Attributes:
        examples: Examples of a chip in a step.
        has_views: Whether the test looks at several views of a video.
        state_bytes: Size of weights and optimizer state.
        optimizer_bytes: Size of the optimizer state alone.
        gradient_bytes: Size of a gradient of all weights.

    Raises:
        ConfigurationError: If a value is out of range, or the batch cannot be shared out.
    """

    def __init__(self, config: ConfigDict, num_classes: int, chips: int) -> None:
        accumulation = config.gradient_accumulation_steps
        check_batch_size(
            config.batch_size, {"chips": chips, "gradient_accumulation_steps": accumulation}
        )
        model_config = make_model_config(config, num_classes)
        preprocessing = make_preprocessing(config, model_config)
        engine = TensorFlowEngine(tf.distribute.OneDeviceStrategy("CPU:0"))
        self._replica = LoneReplica(config, model_config, preprocessing, engine)
        self.examples = config.batch_size // chips
        self.gradient_bytes = self._replica.gradient_bytes
        self.optimizer_bytes = self._replica.optimizer_bytes
        self.state_bytes = self.optimizer_bytes + self._replica.weight_bytes
        videos = evaluation_batch_size(config.batch_size, preprocessing, chips, views=True)
        self._videos = videos // chips
        self._num_views = num_views(preprocessing)
        self.has_views = self._num_views > 1
        self._num_classes = num_classes
        self._input_shape = _input_shape(model_config)

    def train(self) -> bytes:
        """Returns the train step, serialised.

        Raises:
            TrainingError: If XLA has no kernel for an operation.
        """
        return _lower("train", *self._replica.training(self._batch(self.examples)))

    def evaluate(self) -> bytes:
        """Returns the eval step, serialised.

        Raises:
            TrainingError: If XLA has no kernel for an operation.
        """
        return self._lower_evaluation("eval", self._batch(self.examples))

    def evaluate_views(self) -> bytes:
        """Returns the eval step of a test, with all views of its videos, serialised.

        Raises:
            TrainingError: If XLA has no kernel for an operation.
        """
        return self._lower_evaluation("test", self._batch(self._videos, self._num_views))

    def _batch(self, examples: int, *views: int) -> dict[str, tf.TensorSpec]:
        return {
            "image": tf.TensorSpec((examples, *views, *self._input_shape), tf.uint8),
            "target": tf.TensorSpec((examples, self._num_classes), tf.float32),
        }

    def _lower_evaluation(self, name: str, batch: dict[str, tf.TensorSpec]) -> bytes:
        examples = batch["image"].shape[:1]
        batch["label"] = tf.TensorSpec(examples, tf.int64)
        batch["mask"] = tf.TensorSpec(examples, tf.float32)
        return _lower(name, *self._replica.evaluation(batch))


def _input_shape(model: ModelConfig) -> tuple[int, ...]:
    image = (*model.image_size, 3)
    return image if model.num_frames is None else (model.num_frames, *image)


def _lower(name: str, step: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> bytes:
    """Returns a function as StableHLO bytecode.

    Variables become arguments and results, aliased where the step updates them. The
    platform is the CPU's: TensorFlow takes no variables for a TPU that is not there.
    """
    compiled = tf.function(step, jit_compile=True)
    lower = compiled.experimental_get_compiler_ir(*specs)
    try:
        program = lower(stage="stablehlo_serialized", platform_name="CPU")
    # What XLA says arrives as the one or the other.
    except (ValueError, tf.errors.OpError) as error:
        raise TrainingError(
            f"The {name} step does not compile: {_reason(str(error))}. Replace the operation, "
            "or move it to the input pipeline."
        ) from error
    return bytes(program)


def _reason(message: str) -> str:
    names = dict.fromkeys(_NO_KERNEL.findall(message))
    if names:
        return f"XLA has no kernel for {', '.join(names)}"
    return f"XLA says: {message.strip().splitlines()[0].rstrip('.')}"

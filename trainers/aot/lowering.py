"""Lowers the train and eval steps of a configuration for the chips of a slice."""

import abc
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.compiler import Program
from trainers.data.pipeline import check_batch_size
from trainers.data.pipeline import evaluation_batch_size
from trainers.data.preprocessing.examples import num_views
from trainers.engines.engine import Specifications
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing


class StepLowering(abc.ABC):
    """Builds model, optimizer and steps, and lowers the steps without running them.

    Args:
        config: The whole configuration.
        num_classes: Classes of the data.
        chips: Replicas that share the batch.

    Attributes:
        examples: Examples of a chip in a step.
        state_bytes: Size of weights and optimizer state on a chip.
        optimizer_bytes: Size of the optimizer state alone.
        gradient_bytes: Size of a gradient of all weights.
        model_axis: Chips that share one copy of weights and optimizer state.
        largest_model_axis: How many could; 1 if the engine cannot share a copy.
        scope: The part of the step that the programs cover, in words.

    Raises:
        ConfigurationError: If a value is out of range, or the batch cannot be shared out.
    """

    scope: str
    model_axis = 1
    largest_model_axis = 1

    def __init__(self, config: ConfigDict, num_classes: int, chips: int) -> None:
        accumulation = config.gradient_accumulation_steps
        check_batch_size(
            config.batch_size, {"chips": chips, "gradient_accumulation_steps": accumulation}
        )
        model_config = make_model_config(config, num_classes)
        preprocessing = make_preprocessing(config, model_config)
        self._measured = self._build(config, model_config, preprocessing)
        self.examples = config.batch_size // chips
        self.gradient_bytes = self._measured.gradient_bytes
        self.optimizer_bytes = self._measured.optimizer_bytes
        self.state_bytes = self.optimizer_bytes + self._measured.weight_bytes
        videos = evaluation_batch_size(config.batch_size, preprocessing, chips, views=True)
        self._videos = videos // chips
        self._num_views = num_views(preprocessing)
        self._num_classes = num_classes
        self._input_shape = _input_shape(model_config)

    def train(self) -> Program:
        """Returns the train step, or raises a `TrainingError` if it cannot be lowered."""
        return self._lower_training(self._batch(self.examples))

    @property
    def evaluations(self) -> dict[str, Callable[[], Program]]:
        """The eval step by name, with that of the test where a video has several views."""
        steps = {"eval": self.evaluate}
        return {**steps, "test": self.evaluate_views} if self._num_views > 1 else steps

    def evaluate(self) -> Program:
        """Returns the eval step, or raises a `TrainingError` if it cannot be lowered."""
        return self._lower_evaluation("eval", self._labelled(self.examples))

    def evaluate_views(self) -> Program:
        """Returns the eval step of a test, with all views of its videos."""
        return self._lower_evaluation("test", self._labelled(self._videos, self._num_views))

    @abc.abstractmethod
    def _build(self, config: ConfigDict, model_config: ModelConfig, preprocessing: Any) -> Any:
        """Returns the engine's steps to be measured."""

    @abc.abstractmethod
    def _lower_training(self, batch: Specifications) -> Program:
        """Lowers the train step for a chip's share of a batch."""

    @abc.abstractmethod
    def _lower_evaluation(self, name: str, batch: Specifications) -> Program:
        """Lowers an eval step for a chip's share of a batch."""

    def _batch(self, examples: int, *views: int) -> Specifications:
        return {
            "image": tf.TensorSpec((examples, *views, *self._input_shape), tf.uint8),
            "target": tf.TensorSpec((examples, self._num_classes), tf.float32),
        }

    def _labelled(self, examples: int, *views: int) -> Specifications:
        return {
            **self._batch(examples, *views),
            "label": tf.TensorSpec((examples,), tf.int64),
            "mask": tf.TensorSpec((examples,), tf.float32),
        }


def _input_shape(model: ModelConfig) -> tuple[int, ...]:
    image = (*model.image_size, 3)
    return image if model.num_frames is None else (model.num_frames, *image)

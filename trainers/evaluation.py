"""Exact evaluation: every example once, for any batch size and replica count."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from trainers.data.distributed import evaluation_batches
from trainers.data.failures import explain_data_failures
from trainers.data.normalization import normalize
from trainers.data.preprocessing_config import PreprocessingConfig
from trainers.data.sources import Source
from trainers.losses import Loss
from trainers.metrics import evaluation_sums
from trainers.metrics import metrics_of


class Evaluator:
    """Sums masked metrics over padded batches and divides once.

    If the optimizer keeps moving averages of the weights, those are evaluated.

    Args:
        model: The Keras model, built in the strategy's scope.
        optimizer: Its optimizer.
        loss: Loss of each example.
        strategy: Where to run.
        preprocessing: Size and crop of the images.
        batch_size: Global batch size.
        normalization: Name of the input normalisation, done on the device.
    """

    def __init__(
        self,
        *,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: Loss,
        strategy: tf.distribute.Strategy,
        preprocessing: PreprocessingConfig,
        batch_size: int,
        normalization: str,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.strategy = strategy
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.normalization = normalization
        self._step = tf.function(self._distributed_step)

    def evaluate(self, source: Source) -> dict[str, float]:
        """Returns `accuracy`, `top5_accuracy`, `loss` and `num_examples` of a split.

        Raises:
            DataError: If an example cannot be read; it is named.
        """
        batches = evaluation_batches(source, self.preprocessing, self.batch_size, self.strategy)
        totals: dict[str, float] = {}
        with (
            explain_data_failures(source, lambda: range(source.num_examples)),
            averaged_weights(self.model, self.optimizer),
        ):
            for batch in batches:
                for name, value in self._step(batch).items():
                    totals[name] = totals.get(name, 0.0) + float(value)
        return metrics_of(totals)

    def _distributed_step(self, batch: Any) -> dict[str, tf.Tensor]:
        parts = self.strategy.run(self._replica_step, args=(batch,))
        return {
            name: self.strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None)
            for name, part in parts.items()
        }

    def _replica_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logits = self.model(normalize(batch["image"], self.normalization), training=False)
        losses = self.loss(batch["target"], logits)
        return evaluation_sums(logits, batch["label"], losses, batch["mask"])


@contextlib.contextmanager
def averaged_weights(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Puts the moving averages of the weights into the model, and takes them out again.

    Without averages (no `ema_decay`) the model keeps its weights.
    """
    if not optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    raw = [variable.numpy() for variable in variables]
    averages = optimizer._model_variables_moving_average
    try:
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average.numpy())
        yield
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)

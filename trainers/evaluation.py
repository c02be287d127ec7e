"""Exact evaluation: every example once, for any batch size and replica count."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.data.distributed import evaluation_batches
from trainers.data.failures import explain_data_failures
from trainers.data.normalization import normalize
from trainers.data.preprocessing_config import PreprocessingConfig
from trainers.data.sources import Source
from trainers.losses import Loss
from trainers.metrics import confusion_counts
from trainers.metrics import evaluation_sums
from trainers.metrics import metrics_of

_CONFUSION = "confusion"


class Evaluator:
    """Sums masked metrics over padded batches and divides once.

    If the optimizer keeps moving averages of the weights, those are evaluated; the
    weights are what they were afterwards.

    Args:
        model: The Keras model, built in the strategy's scope.
        optimizer: Its optimizer.
        loss: Loss of each example.
        strategy: Where to run.
        preprocessing: Size and crop of the images.
        batch_size: Global batch size.
        normalization: Name of the input normalisation, done on the device.
        averages: Whether moving averages are evaluated, where there are any; else the
            weights themselves.
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
        averages: bool = True,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.strategy = strategy
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.normalization = normalization
        self.averages = averages
        self._step = tf.function(self._distributed_step)

    def evaluate(self, source: Source, num_batches: int | None = None) -> dict[str, float]:
        """Returns `accuracy`, `top5_accuracy`, `loss` and `num_examples` of a split.

        Args:
            source: The examples.
            num_batches: Stops after so many batches, to rehearse. None reads all examples.

        Raises:
            DataError: If an example cannot be read; it is named.
        """
        return metrics_of(self._totals(source, num_batches, by_class=False))

    def evaluate_by_class(self, source: Source) -> tuple[dict[str, float], NDArray[np.int64]]:
        """Returns the metrics of a split, and how often each class was taken for each.

        Args:
            source: The examples, with one class each.

        Returns:
            As `evaluate`; and counts `(K, K)`, the right class first, then the predicted.

        Raises:
            DataError: If an example cannot be read; it is named.
        """
        totals = self._totals(source, None, by_class=True)
        confusion = totals.pop(_CONFUSION)
        return metrics_of(totals), np.asarray(confusion, np.int64)

    def replica_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Evaluates one replica's share of a batch; to be called by `strategy.run`.

        Args:
            batch: `image`, uint8 (B, H, W, 3); `target`, float32 (B, num_classes); `label`,
                integers (B,) or 0/1 (B, num_classes); `mask`, float32 (B,), 0 for padding.

        Returns:
            Sums over the share's examples, as `evaluation_sums`.
        """
        return self._sums(self._logits(batch), batch)

    def _totals(self, source: Source, num_batches: int | None, *, by_class: bool) -> dict[str, Any]:
        batches = evaluation_batches(source, self.preprocessing, self.batch_size, self.strategy)
        totals: dict[str, Any] = {}
        with (
            explain_data_failures(source, lambda: range(source.num_examples)),
            averaged_weights(self.model, self.optimizer)
            if self.averages
            else contextlib.nullcontext(),
        ):
            for batch in itertools.islice(batches, num_batches):
                for name, value in self._step(batch, by_class).items():
                    # float64: the sums of a large set keep their digits.
                    totals[name] = totals.get(name, 0.0) + value.numpy().astype(np.float64)
        return totals

    def _distributed_step(self, batch: Any, by_class: bool) -> dict[str, tf.Tensor]:
        step = self._replica_step_by_class if by_class else self.replica_step
        parts = self.strategy.run(step, args=(batch,))
        return {
            name: self.strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None)
            for name, part in parts.items()
        }

    def _replica_step_by_class(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logits = self._logits(batch)
        confusion = confusion_counts(logits, batch["label"], batch["mask"])
        return {**self._sums(logits, batch), _CONFUSION: confusion}

    def _logits(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return self.model(normalize(batch["image"], self.normalization), training=False)

    def _sums(self, logits: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        losses = self.loss(batch["target"], logits)
        return evaluation_sums(logits, batch["label"], losses, batch["mask"])


def has_several_labels(source: Source) -> bool:
    """Whether an example of a source may have several labels, or none."""
    example = tf.data.Dataset.range(1).map(source.load).element_spec
    return bool(example["label"].shape.rank == 1)


@contextlib.contextmanager
def averaged_weights(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None
) -> Iterator[None]:
    """Puts the moving averages of the weights into the model, and takes them out again.

    Without averages (no optimizer, or no `ema_decay`) the model keeps its weights.
    """
    if optimizer is None or not optimizer.use_ema:
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

"""Evaluates exactly: every example once, for any batch size and replica count."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainers.data.bad_examples import BadExamples
from trainers.data.bad_examples import BadExamplesFile
from trainers.data.decode_errors import explain_data_failures
from trainers.data.pipeline import evaluation_batch_size
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.sources import Source
from trainers.engines.batches import evaluation_batches
from trainers.engines.engine import Batch
from trainers.engines.engine import Engine
from trainers.steps.ema import averaged_weights
from trainers.steps.logits import ViewReduction
from trainers.steps.logits import class_logits
from trainers.steps.logits import make_view_reduction
from trainers.steps.losses import Loss
from trainers.steps.metrics import average_precisions
from trainers.steps.metrics import class_sums
from trainers.steps.metrics import confusion_counts
from trainers.steps.metrics import evaluation_sums
from trainers.steps.metrics import mean_average_precision
from trainers.steps.metrics import metrics_of
from trainers.utils.errors import DataError
from trainers.utils.reporting import log_to_stderr

_CONFUSION = "confusion"


class Evaluator:
    """Sums masked metrics over padded batches and divides once.

    If the optimizer keeps moving averages of the weights, they are evaluated, and the weights are
    restored afterwards.

    Args:
        model: The Keras model, built in the engine's scope.
        optimizer: Its optimizer; None if the model holds what is to be evaluated.
        loss: Loss of each example.
        engine: Where to run.
        preprocessing: Size and crop of the images.
        batch_size: Global batch size; with views, that of the clips of a batch, see
            `evaluation_batch_size`.
        normalization: Name of the input normalisation, done on the device.
        averages: Whether moving averages are evaluated, where there are any; else the weights
            themselves.
        multi_label: Whether an example has any number of labels: mean average precision replaces
            the accuracies.
        view_reduction: Reduces the logits of a video's views to one answer; None averages them.
        max_bad_examples: How many unreadable examples of a source may be left out; `num_examples`
            is smaller then.
    """

    def __init__(
        self,
        *,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer | None,
        loss: Loss,
        engine: Engine,
        preprocessing: Preprocessing,
        batch_size: int,
        normalization: str,
        averages: bool = True,
        multi_label: bool = False,
        view_reduction: ViewReduction | None = None,
        max_bad_examples: int = 0,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.engine = engine
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.normalization = normalization
        self.averages = averages
        self.multi_label = multi_label
        self.view_reduction = view_reduction or make_view_reduction("logits", "softmax")
        self.max_bad_examples = max_bad_examples
        self._bad_examples: dict[Source, BadExamples] = {}
        self._bad_examples_file: BadExamplesFile | None = None
        self._step = engine.evaluation(model, self.replica_step)
        self._step_by_class = engine.evaluation(model, self._replica_step_by_class)
        self._ranking_step = engine.evaluation(model, self._replica_ranking_step, per_example=True)

    @property
    def bad_examples(self) -> list[BadExamples]:
        """The unreadable examples so far, of each source that was evaluated."""
        return list(self._bad_examples.values())

    def list_bad_examples_in(self, file: BadExamplesFile) -> None:
        """Lists in a file the unreadable examples of every source evaluated from now on."""
        self._bad_examples_file = file

    def evaluate(
        self, source: Source, num_batches: int | None = None, views: bool = False
    ) -> dict[str, float]:
        """Returns `accuracy`, `top5_accuracy`, `loss` and `num_examples` of a split.

        `top5_accuracy` is left out where there are no more than five classes. Where each example
        has one class, `mean_class_accuracy` is the mean over the classes that have examples. With
        several labels the result is `mean_average_precision`, `loss` and `num_examples`.

        Args:
            source: The examples.
            num_batches: For a rehearsal, stops after so many batches, or the first after them by
                which an example has counted. None reads all examples.
            views: Whether a video is judged by all its views, or by the clip in its middle.

        Raises:
            DataError: If an example cannot be read, which it names, or if none counts.
        """
        if self.multi_label:
            return self.evaluate_ranking(source, num_batches, views)[0]
        return metrics_of(self._totals(source, num_batches, views, by_class=False))

    def evaluate_ranking(
        self, source: Source, num_batches: int | None = None, views: bool = False
    ) -> tuple[dict[str, float], NDArray[np.float64]]:
        """Returns the metrics of a split with several labels, and each class's precision.

        Arguments and errors are those of `evaluate`.

        Returns:
            `mean_average_precision` over the classes that have examples, `loss`, `num_examples`;
            and the average precisions `(K,)`, NaN for a class without any.
        """
        sums = {"loss": 0.0, "num_examples": 0.0}
        scores, targets = [], []
        with self._evaluating(source):
            for number, batch in enumerate(self._batches(source, views), 1):
                parts = self._ranking_step(batch)
                real = parts["mask"] > 0
                scores.append(parts["logits"][real])
                targets.append(parts["target"][real])
                sums["loss"] += float(parts["loss"][real].astype(np.float64).sum())
                sums["num_examples"] += int(real.sum())
                if _is_rehearsed(number, num_batches, sums):
                    break
        _check_any(source, sums)
        precisions = average_precisions(np.concatenate(scores), np.concatenate(targets))
        metrics = {
            "mean_average_precision": mean_average_precision(precisions),
            "loss": sums["loss"] / sums["num_examples"],
            "num_examples": int(sums["num_examples"]),
        }
        return metrics, precisions

    def evaluate_by_class(
        self, source: Source, views: bool = False
    ) -> tuple[dict[str, float], NDArray[np.int64]]:
        """Returns the metrics of a split, and how often each class was predicted for each.

        Each example has one class. Arguments and errors are those of `evaluate`.

        Returns:
            As `evaluate`; and counts `(K, K)`, the right class first, then the predicted one.
        """
        totals = self._totals(source, None, views, by_class=True)
        confusion = totals.pop(_CONFUSION)
        return metrics_of(totals), np.asarray(confusion, np.int64)

    def replica_step(self, batch: Batch) -> Batch:
        """Evaluates one replica's share of a batch; to be compiled by the engine.

        Args:
            batch: `image`, uint8 (B, H, W, 3), (B, T, H, W, 3) or with views
                (B, V, T, H, W, 3); `target`, float32 (B, num_classes); `label`,
                integers (B,) or 0/1 (B, num_classes); `mask`, float32 (B,), 0 for padding.

        Returns:
            Sums over the share's examples, as `evaluation_sums`; with one class an example
            also as `class_sums`.
        """
        return self._sums(self._logits(batch), batch)

    def _totals(
        self, source: Source, num_batches: int | None, views: bool, *, by_class: bool
    ) -> dict[str, Any]:
        step = self._step_by_class if by_class else self._step
        totals: dict[str, Any] = {}
        with self._evaluating(source):
            for number, batch in enumerate(self._batches(source, views), 1):
                for name, value in step(batch).items():
                    # float64: the sums of a large set keep their digits.
                    totals[name] = totals.get(name, 0.0) + value.astype(np.float64)
                if _is_rehearsed(number, num_batches, totals):
                    break
        _check_any(source, totals)
        return totals

    def _batches(self, source: Source, views: bool) -> Any:
        replicas = self.engine.num_replicas
        return evaluation_batches(
            source,
            self.preprocessing,
            evaluation_batch_size(self.batch_size, self.preprocessing, replicas, views),
            self.engine,
            views,
            self._bad_examples_of(source),
        )

    def _bad_examples_of(self, source: Source) -> BadExamples:
        if source not in self._bad_examples:
            examples = BadExamples(source, self.max_bad_examples, log_to_stderr)
            if self._bad_examples_file:
                examples.list_in(self._bad_examples_file)
            self._bad_examples[source] = examples
        return self._bad_examples[source]

    @contextlib.contextmanager
    def _evaluating(self, source: Source) -> Iterator[None]:
        """Puts the weights to evaluate into the model, and names damaged examples."""
        with (
            explain_data_failures(source, lambda: range(source.num_examples)),
            self._bad_examples_of(source).explain(),
            averaged_weights(self.model, self.optimizer)
            if self.averages
            else contextlib.nullcontext(),
        ):
            yield

    def _replica_step_by_class(self, batch: Batch) -> Batch:
        logits = self._logits(batch)
        confusion = confusion_counts(logits, batch["label"], batch["mask"])
        return {**self._sums(logits, batch), _CONFUSION: confusion}

    def _replica_ranking_step(self, batch: Batch) -> Batch:
        logits = self._logits(batch)
        loss = self.loss(batch["target"], logits)
        return {"logits": logits, "loss": loss, "target": batch["target"], "mask": batch["mask"]}

    def _logits(self, batch: Batch) -> Any:
        return class_logits(self.model, batch["image"], self.normalization, self.view_reduction)

    def _sums(self, logits: Any, batch: Batch) -> Batch:
        losses = self.loss(batch["target"], logits)
        labels, mask = batch["label"], batch["mask"]
        by_class = class_sums(logits, labels, mask) if len(labels.shape) == 1 else {}
        return {**evaluation_sums(logits, labels, losses, mask), **by_class}


def _is_rehearsed(number: int, num_batches: int | None, sums: dict[str, Any]) -> bool:
    # All examples of a batch may be among those that are left out.
    return num_batches is not None and number >= num_batches and sums["num_examples"] > 0


def _check_any(source: Source, sums: dict[str, Any]) -> None:
    # Several hosts may each leave out all that they read, within the limit of each.
    if not sums["num_examples"] > 0:
        raise DataError(
            f"Expected at least one of the {source.num_examples} examples of {source.name}/"
            f"{source.split} to count. All were left out: they cannot be read "
            "(data.max_bad_examples) or have no label. Restore the files, or choose other data."
        )

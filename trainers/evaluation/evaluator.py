"""Evaluates exactly: every example once, for any batch size and replica count."""

import dataclasses
from collections.abc import Callable
from functools import partial
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
from trainers.steps.optimizer import averaged_weights
from trainers.utils.errors import DataError
from trainers.utils.reporting import log_to_stderr

_CONFUSION = "confusion"


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator:
    """Sums masked metrics over padded batches and divides once.

    Args:
        model: Built in the engine's scope.
        optimizer: If it keeps moving averages of the weights, they are evaluated, and the weights
            are restored afterwards. None evaluates the weights themselves.
        batch_size: Global; with views, that of the clips of a batch, see `evaluation_batch_size`.
        normalization: Name of the input normalisation, done on the device.
        multi_label: Whether an example has any number of labels: mean average precision replaces
            the accuracies.
        view_reduction: Reduces the logits of a video's views to one answer.
        max_bad_examples: How many unreadable examples of a source may be left out; `num_examples`
            is smaller then.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer | None
    loss: Loss
    engine: Engine
    preprocessing: Preprocessing
    batch_size: int
    normalization: str
    multi_label: bool = False
    view_reduction: ViewReduction = make_view_reduction("logits", "softmax")
    max_bad_examples: int = 0

    def __post_init__(self) -> None:
        self._bad_examples: dict[Source, BadExamples] = {}
        self._bad_examples_file: BadExamplesFile | None = None
        evaluation = partial(self.engine.evaluation, self.model)
        self._step = evaluation(self.replica_step)
        self._step_by_class = evaluation(self._replica_step_by_class)
        self._ranking_step = evaluation(self._replica_ranking_step, per_example=True)

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
            num_batches: For a rehearsal, stops after so many batches, or the first after them by
                which an example has counted. None reads all examples.
            views: Whether a video is judged by all its views, or by the clip in its middle.

        Raises:
            DataError: If an example cannot be read, which it names, or if none counts.
        """
        if self.multi_label:
            return self.evaluate_ranking(source, num_batches, views)[0]
        return metrics_of(self._totals(self._step, source, num_batches, views))

    def evaluate_ranking(
        self, source: Source, num_batches: int | None = None, views: bool = False
    ) -> tuple[dict[str, float], NDArray[np.float64]]:
        """Returns what `evaluate` does with several labels, and each class's average precision.

        The precisions are `(K,)`, NaN for a class without examples; the mean leaves these out.
        """
        scores: list[NDArray[Any]] = []
        targets: list[NDArray[Any]] = []

        def step(batch: Any) -> dict[str, Any]:
            parts = self._ranking_step(batch)
            real = parts["mask"] > 0
            scores.append(parts["logits"][real])
            targets.append(parts["target"][real])
            loss = parts["loss"][real].astype(np.float64).sum()
            return {"loss": loss, "num_examples": real.sum()}

        sums = self._totals(step, source, num_batches, views)
        precisions = average_precisions(np.concatenate(scores), np.concatenate(targets))
        metrics = {
            "mean_average_precision": mean_average_precision(precisions),
            "loss": float(sums["loss"] / sums["num_examples"]),
            "num_examples": int(sums["num_examples"]),
        }
        return metrics, precisions

    def evaluate_by_class(
        self, source: Source, views: bool = False
    ) -> tuple[dict[str, float], NDArray[np.int64]]:
        """Returns what `evaluate` does, and how often each class was predicted for each.

        Each example has one class. The counts are `(K, K)`, the right class first, then the
        predicted one.
        """
        totals = self._totals(self._step_by_class, source, None, views)
        confusion = totals.pop(_CONFUSION)
        return metrics_of(totals), np.asarray(confusion, np.int64)

    def replica_step(self, batch: Batch) -> Batch:
        """Evaluates a replica's share of a batch of `evaluation_dataset`; the engine compiles it.

        Returns the sums of `evaluation_sums`; with one class per example also of `class_sums`.
        """
        return self._sums(self._logits(batch), batch)

    def _totals(
        self,
        step: Callable[[Any], dict[str, Any]],
        source: Source,
        num_batches: int | None,
        views: bool,
    ) -> dict[str, Any]:
        """Returns the sums of a step's results over all batches; see `evaluate`."""
        engine, preprocessing = self.engine, self.preprocessing
        size = evaluation_batch_size(self.batch_size, preprocessing, engine.num_replicas, views)
        bad_examples = self._bad_examples_of(source)
        totals: dict[str, Any] = {}
        with (
            explain_data_failures(source, lambda: range(source.num_examples)),
            bad_examples.explain(),
            averaged_weights(self.model, self.optimizer),
        ):
            batches = evaluation_batches(source, preprocessing, size, engine, views, bad_examples)
            for number, batch in enumerate(batches, 1):
                for name, value in step(batch).items():
                    # float64: the sums of a large set keep their digits.
                    totals[name] = totals.get(name, 0.0) + value.astype(np.float64)
                # All examples of a batch may be among those that are left out.
                if num_batches is not None and number >= num_batches and totals["num_examples"]:
                    break
        # Several hosts may each leave out all that they read, within the limit of each.
        if not totals["num_examples"] > 0:
            raise DataError(
                f"Expected at least one of the {source.num_examples} examples of {source.name}/"
                f"{source.split} to count. All were left out: they cannot be read "
                "(data.max_bad_examples) or have no label. Restore the files, or choose other data."
            )
        return totals

    def _bad_examples_of(self, source: Source) -> BadExamples:
        if source not in self._bad_examples:
            examples = BadExamples(source, self.max_bad_examples, log_to_stderr)
            if self._bad_examples_file:
                examples.list_in(self._bad_examples_file)
            self._bad_examples[source] = examples
        return self._bad_examples[source]

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

"""Computes exact evaluation metrics: sums over all batches, divided once."""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from trainers.utils.errors import ConfigurationError

#: Tensors of Keras' backend.
Sums = dict[str, Any]

TOP_K = 5


def evaluation_sums(logits: Any, labels: Any, losses: Any, mask: Any) -> Sums:
    """Returns masked sums over one batch; sums over batches and replicas add up.

    They are `correct`, `loss`, `num_examples`, and `top5_correct` if K is more than five.

    Args:
        logits: `(B, K)`.
        labels: `(B,)` integers; or `(B, K)` zeros and ones, where any class with a one is
            right and an example without ones, which nothing could get right, is left out.
        losses: `(B,)`.
        mask: `(B,)`, 1 for a real example, 0 for padding.
    """
    mask = ops.cast(mask, "float32")
    if len(labels.shape) == 2:
        mask *= ops.cast(ops.any(labels > 0, axis=1), "float32")
    ahead = _classes_ahead(logits, labels)
    real = mask > 0
    sums = {"correct": ops.sum(mask * ops.cast(ahead < 1, "float32"))}
    # Among five classes or fewer every answer would be right.
    if logits.shape[1] > TOP_K:
        sums["top5_correct"] = ops.sum(mask * ops.cast(ahead < TOP_K, "float32"))
    return {
        **sums,
        "loss": ops.sum(ops.where(real, losses, ops.zeros_like(losses))),
        "num_examples": ops.sum(mask),
    }


def class_sums(logits: Any, labels: Any, mask: Any) -> Sums:
    """Returns `class_correct` and `class_examples`, `(K,)`, of integer labels `(B,)`.

    Over the classes they add up to `correct` and `num_examples` of `evaluation_sums`.
    """
    mask = ops.cast(mask, "float32")
    is_right = ops.cast(_classes_ahead(logits, labels) < 1, "float32")
    examples = mask[:, None] * _one_hot(labels, logits)  # (B, K)
    return {
        "class_correct": ops.sum(is_right[:, None] * examples, axis=0),
        "class_examples": ops.sum(examples, axis=0),
    }


def confusion_counts(logits: Any, labels: Any, mask: Any) -> Any:
    """Returns how often each class was predicted for each, `(K, K)`: right class, predicted class.

    `labels` are integers `(B,)`. The diagonal agrees with `correct` of `evaluation_sums`: the right
    class is predicted only if it is ahead of all others, alone.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "int32")
    chosen = _answers(logits, labels)  # (B,)
    right = _one_hot(labels, logits)  # (B, K)
    # NaN is ahead of the right class, as in evaluation_sums.
    smallest = float(np.finfo(np.float32).min)
    others = ops.where(ops.isnan(logits), np.inf, ops.maximum(logits, smallest))
    others = ops.where(right > 0, -np.inf, others)
    is_right = chosen > ops.max(others, axis=1)
    predicted = ops.where(is_right, labels, ops.cast(ops.argmax(others, axis=1), "int32"))
    # A product of zeros and ones is exact on every device, and has a static shape.
    mask = ops.cast(mask, "float32")[:, None]
    return ops.matmul(ops.transpose(mask * right), _one_hot(predicted, logits))


def metrics_of(sums: dict[str, Any]) -> dict[str, float]:
    """Divides the sums of all batches, once.

    Those of `class_sums` add `mean_class_accuracy`, over the classes that have examples.
    """
    count = sums["num_examples"]
    metrics = {"accuracy": float(sums["correct"] / count)}
    if "top5_correct" in sums:
        metrics["top5_accuracy"] = float(sums["top5_correct"] / count)
    if "class_examples" in sums:
        found = sums["class_examples"] > 0
        recall = sums["class_correct"][found] / sums["class_examples"][found]
        metrics["mean_class_accuracy"] = float(np.mean(recall))
    return {**metrics, "loss": float(sums["loss"] / count), "num_examples": int(count)}


def _classes_ahead(logits: Any, labels: Any) -> Any:
    """Returns how many wrong classes are not below the best right one, `(B,)`.

    Ties count against the right class, and so does NaN: neither a constant model nor a
    broken one is right.
    """
    logits = ops.cast(logits, "float32")
    if len(labels.shape) == 2:
        right = labels > 0
        chosen = ops.max(ops.where(right, logits, -np.inf), axis=1)
    else:
        right = _one_hot(labels, logits) > 0
        chosen = _answers(logits, labels)
    is_ahead = ops.logical_not(ops.logical_or(logits < chosen[:, None], right))
    return ops.sum(ops.cast(is_ahead, "float32"), axis=1)


def _one_hot(labels: Any, logits: Any) -> Any:
    return ops.one_hot(ops.cast(labels, "int32"), logits.shape[1])


def _answers(logits: Any, labels: Any) -> Any:
    """Returns the logit of each example's class, `(B,)`."""
    labels = ops.cast(labels, "int32")
    return ops.squeeze(ops.take_along_axis(logits, labels[:, None], axis=1), axis=1)


def check_scikit_learn(purpose: str) -> None:
    """Raises a ConfigurationError if scikit-learn, which `purpose` needs, is missing."""
    try:
        import sklearn.metrics  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"{purpose} needs scikit-learn: pip install scikit-learn"
        ) from error


def average_precisions(
    scores: NDArray[np.floating], targets: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Returns the average precision of each class; NaN for a class without positives.

    It is scikit-learn's `average_precision_score`: the area under the steps of precision over
    recall, without interpolation. Scores, such as logits, and zeros and ones are `(N, K)`. Only
    the order of the scores in a class matters; NaN ranks lowest.
    """
    from sklearn.metrics import average_precision_score

    lowest, highest = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
    finite = np.nan_to_num(scores, nan=lowest, posinf=highest, neginf=lowest)
    right = targets > 0
    return np.array(
        [
            average_precision_score(right[:, k], finite[:, k]) if right[:, k].any() else np.nan
            for k in range(right.shape[1])
        ]
    )


def mean_average_precision(precisions: NDArray[np.float64]) -> float:
    """Returns the mean of `average_precisions` over classes with positives; 0 if none has any."""
    known = precisions[~np.isnan(precisions)]
    return float(known.mean()) if known.size else 0.0

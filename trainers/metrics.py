"""Sums from which exact evaluation metrics are divided, once."""

from typing import Any

import numpy as np
import tensorflow as tf

Sums = dict[str, tf.Tensor]

TOP_K = 5


def evaluation_sums(
    logits: tf.Tensor, labels: tf.Tensor, losses: tf.Tensor, mask: tf.Tensor
) -> Sums:
    """Returns masked sums over one batch; sums over batches and replicas add up.

    Args:
        logits: `(B, K)`.
        labels: `(B,)` integers; or `(B, K)` zeros and ones, where any class with a one is
            right and an example without ones, which nothing could get right, is left out.
        losses: `(B,)` loss of each example.
        mask: `(B,)`, 1 for a real example, 0 for padding.

    Returns:
        `correct`, `loss`, `num_examples`, and `top5_correct` if K is more than five.
    """
    mask = tf.cast(mask, tf.float32)
    if labels.shape.rank == 2:
        mask *= tf.cast(tf.reduce_any(labels > 0, axis=1), tf.float32)
    ahead = _classes_ahead(logits, labels)
    real = mask > 0
    sums = {"correct": tf.reduce_sum(mask * tf.cast(ahead < 1, tf.float32))}
    # Among five classes or fewer every answer would be right.
    if logits.shape[1] > TOP_K:
        sums["top5_correct"] = tf.reduce_sum(mask * tf.cast(ahead < TOP_K, tf.float32))
    return {
        **sums,
        "loss": tf.reduce_sum(tf.where(real, losses, tf.zeros_like(losses))),
        "num_examples": tf.reduce_sum(mask),
    }


def class_sums(logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> Sums:
    """Returns masked sums over one batch, of each class; those of batches and replicas add up.

    Args:
        logits: `(B, K)`.
        labels: `(B,)` integers.
        mask: `(B,)`, 1 for a real example, 0 for padding.

    Returns:
        `class_correct` and `class_examples`, `(K,)`. Over the classes they add up to
        `correct` and `num_examples` of `evaluation_sums`.
    """
    mask = tf.cast(mask, tf.float32)
    is_right = tf.cast(_classes_ahead(logits, labels) < 1, tf.float32)
    examples = mask[:, None] * tf.one_hot(labels, logits.shape[1])  # (B, K)
    return {
        "class_correct": tf.reduce_sum(is_right[:, None] * examples, axis=0),
        "class_examples": tf.reduce_sum(examples, axis=0),
    }


def confusion_counts(logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns how often each class was taken for each, `(K, K)`: right class, predicted class.

    The diagonal agrees with `correct` of `evaluation_sums`: the right class is predicted
    only if it is ahead of all others, alone.

    Args:
        logits: `(B, K)`.
        labels: `(B,)` integers.
        mask: `(B,)`, 1 for a real example, 0 for padding.
    """
    logits = tf.cast(logits, tf.float32)
    num_classes = logits.shape[1]
    chosen = tf.gather(logits, labels, axis=1, batch_dims=1)  # (B,)
    right = tf.one_hot(labels, num_classes)  # (B, K)
    # NaN is ahead of the right class, as in evaluation_sums.
    others = tf.where(tf.math.is_nan(logits), np.inf, tf.maximum(logits, tf.float32.min))
    others = tf.where(right > 0, -np.inf, others)
    is_right = chosen > tf.reduce_max(others, axis=1)
    predicted = tf.where(is_right, tf.cast(labels, tf.int64), tf.argmax(others, axis=1))
    # A product of zeros and ones is exact on every device, and has a static shape.
    mask = tf.cast(mask, tf.float32)[:, None]
    return tf.matmul(mask * right, tf.one_hot(predicted, num_classes), transpose_a=True)


def metrics_of(sums: dict[str, Any]) -> dict[str, float]:
    """Divides the sums of all batches, once.

    Args:
        sums: From `evaluation_sums`; those of `class_sums` among them add
            `mean_class_accuracy`, the mean over the classes that have examples.
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


def _classes_ahead(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns how many wrong classes are not below the best right one, `(B,)`.

    Ties count against the right class, and so does NaN: neither a constant model nor a
    broken one is right.
    """
    logits = tf.cast(logits, tf.float32)
    if labels.shape.rank == 2:
        right = labels > 0
        chosen = tf.reduce_max(tf.where(right, logits, -np.inf), axis=1)[:, None]
    else:
        classes = tf.range(tf.shape(logits)[1], dtype=labels.dtype)[None]
        right = classes == labels[:, None]
        chosen = tf.gather(logits, labels, axis=1, batch_dims=1)[:, None]
    others = tf.cast(~right, tf.float32)
    return tf.reduce_sum(others * tf.cast(~(logits < chosen), tf.float32), axis=1)

"""Sums from which exact evaluation metrics are divided, once."""

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
    """
    logits = tf.cast(logits, tf.float32)
    mask = tf.cast(mask, tf.float32)
    if labels.shape.rank == 2:
        right = labels > 0
        chosen = tf.reduce_max(tf.where(right, logits, -np.inf), axis=1)[:, None]
        mask *= tf.cast(tf.reduce_any(right, axis=1), tf.float32)
    else:
        classes = tf.range(tf.shape(logits)[1], dtype=labels.dtype)[None]
        right = classes == labels[:, None]
        chosen = tf.gather(logits, labels, axis=1, batch_dims=1)[:, None]
    # Rank of the right class. Ties count against it, and so does NaN: neither a constant
    # model nor a broken one is right.
    others = tf.cast(~right, tf.float32)
    ahead = tf.reduce_sum(others * tf.cast(~(logits < chosen), tf.float32), axis=1)
    real = mask > 0
    return {
        "correct": tf.reduce_sum(mask * tf.cast(ahead < 1, tf.float32)),
        "top5_correct": tf.reduce_sum(mask * tf.cast(ahead < TOP_K, tf.float32)),
        "loss": tf.reduce_sum(tf.where(real, losses, tf.zeros_like(losses))),
        "num_examples": tf.reduce_sum(mask),
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


def metrics_of(sums: dict[str, float]) -> dict[str, float]:
    """Divides the sums of all batches by the number of real examples."""
    count = sums["num_examples"]
    return {
        "accuracy": float(sums["correct"] / count),
        "top5_accuracy": float(sums["top5_correct"] / count),
        "loss": float(sums["loss"] / count),
        "num_examples": int(count),
    }

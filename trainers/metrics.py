"""Sums from which exact evaluation metrics are divided, once."""

import tensorflow as tf

Sums = dict[str, tf.Tensor]

TOP_K = 5


def evaluation_sums(
    logits: tf.Tensor, labels: tf.Tensor, losses: tf.Tensor, mask: tf.Tensor
) -> Sums:
    """Returns masked sums over one batch; sums over batches and replicas add up.

    Args:
        logits: `(B, K)`.
        labels: `(B,)` integers.
        losses: `(B,)` loss of each example.
        mask: `(B,)`, 1 for a real example, 0 for padding.
    """
    logits = tf.cast(logits, tf.float32)
    chosen = tf.gather(logits, labels, axis=1, batch_dims=1)[:, None]
    # Rank of the right class. Ties count against it, and so does NaN: neither a constant
    # model nor a broken one is right.
    classes = tf.range(tf.shape(logits)[1], dtype=labels.dtype)[None]
    others = tf.cast(classes != labels[:, None], tf.float32)
    ahead = tf.reduce_sum(others * tf.cast(~(logits < chosen), tf.float32), axis=1)
    mask = tf.cast(mask, tf.float32)
    real = mask > 0
    return {
        "correct": tf.reduce_sum(mask * tf.cast(ahead < 1, tf.float32)),
        "top5_correct": tf.reduce_sum(mask * tf.cast(ahead < TOP_K, tf.float32)),
        "loss": tf.reduce_sum(tf.where(real, losses, tf.zeros_like(losses))),
        "num_examples": tf.reduce_sum(mask),
    }


def metrics_of(sums: dict[str, float]) -> dict[str, float]:
    """Divides the sums of all batches by the number of real examples."""
    count = sums["num_examples"]
    return {
        "accuracy": sums["correct"] / count,
        "top5_accuracy": sums["top5_correct"] / count,
        "loss": sums["loss"] / count,
        "num_examples": int(count),
    }

"""Losses of one example, in float32; the step divides by the global batch."""

from collections.abc import Callable

import tensorflow as tf

from trainers.errors import ConfigurationError

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def make_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """Returns a function of (targets, logits), both (B, K), to losses (B,).

    Args:
        name: `"softmax"` cross-entropy over classes, or `"sigmoid"` cross-entropy
            summed over classes (as in the reference; an average would be K times
            smaller).
        label_smoothing: Share in [0, 1) of the target spread evenly over the classes.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    losses = {"softmax": softmax_cross_entropy, "sigmoid": sigmoid_cross_entropy}
    if name not in losses:
        raise ConfigurationError(f"loss must be one of {', '.join(losses)}. Received: {name!r}.")
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigurationError(
            f"label_smoothing must be at least 0 and below 1. Received: {label_smoothing}."
        )

    def loss(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return losses[name](smooth(targets, label_smoothing), tf.cast(logits, tf.float32))

    return loss


def softmax_cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns -sum_k targets log softmax(logits), (B,)."""
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)


def sigmoid_cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the binary cross-entropies summed over the classes, (B,)."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(losses, axis=-1)


def smooth(targets: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Returns targets mixed with the uniform distribution over the classes."""
    if label_smoothing == 0.0:
        return targets
    num_classes = tf.cast(tf.shape(targets)[-1], targets.dtype)
    return targets * (1.0 - label_smoothing) + label_smoothing / num_classes

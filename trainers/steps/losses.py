"""Losses of one example, in float32; the step divides by the global batch."""

from collections.abc import Callable
from typing import Any

from keras import ops

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

#: From targets and logits, tensors of Keras' backend, to the loss of each example.
Loss = Callable[[Any, Any], Any]


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
        raise ConfigurationError(
            f"loss must be one of {', '.join(losses)}. Received: {name!r}."
            + did_you_mean(name, losses)
        )
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigurationError(
            f"label_smoothing must be at least 0 and below 1. Received: {label_smoothing}."
        )

    def loss(targets: Any, logits: Any) -> Any:
        return losses[name](smooth(targets, label_smoothing), ops.cast(logits, "float32"))

    return loss


def softmax_cross_entropy(targets: Any, logits: Any) -> Any:
    """Returns -sum_k targets log softmax(logits), (B,)."""
    return -ops.sum(targets * ops.log_softmax(logits), axis=-1)


def sigmoid_cross_entropy(targets: Any, logits: Any) -> Any:
    """Returns the binary cross-entropies summed over the classes, (B,)."""
    # Neither term loses its digits for large logits, and the gradient at zero is exact.
    losses = targets * ops.softplus(-logits) + (1.0 - targets) * ops.softplus(logits)
    return ops.sum(losses, axis=-1)


def smooth(targets: Any, label_smoothing: float) -> Any:
    """Returns targets mixed with the uniform distribution over the classes."""
    if label_smoothing == 0.0:
        return targets
    return targets * (1.0 - label_smoothing) + label_smoothing / targets.shape[-1]

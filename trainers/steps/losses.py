"""Computes the loss of each example in float32, and the probabilities that its logits mean."""

import math
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from keras import ops

from trainers.configuration.checks import check
from trainers.configuration.checks import check_choice

#: From targets and logits, tensors of Keras' backend, to the loss of each example.
Loss = Callable[[Any, Any], Any]


class LossKind(NamedTuple):
    """A loss, and the meaning of the logits that a model learns by it."""

    function: Loss  # from targets and logits (B, K) to the losses (B,)
    activation: Callable[[Any], Any]  # from logits to probabilities, of the same shape
    # From the logits of views (V, B, K) to the logits (B, K) of the mean probabilities.
    average: Callable[[Any], Any]


def make_loss(
    name: str, label_smoothing: float = 0.0, class_weights: tuple[float, ...] | None = None
) -> Loss:
    """Returns a function of (targets, logits), both (B, K), to losses (B,).

    Args:
        name: `"softmax"` cross-entropy over classes, or `"sigmoid"` cross-entropy summed over
            classes (as in the reference; an average would be K times smaller).
        label_smoothing: Share in [0, 1) of the target spread evenly over the classes.
        class_weights: K numbers, by which the loss of an example of each class is multiplied; that
            of a mixture by their mean, with the shares of the (not smoothed) target. None: nothing.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    check_choice("loss", name, tuple(LOSSES))
    fits = 0 <= label_smoothing < 1
    check(fits, "label_smoothing", "at least 0 and below 1", label_smoothing)

    function = LOSSES[name].function

    def loss(targets: Any, logits: Any) -> Any:
        return function(smooth(targets, label_smoothing), ops.cast(logits, "float32"))

    def weighted_loss(targets: Any, logits: Any) -> Any:
        weights = ops.convert_to_tensor(class_weights, "float32")
        return loss(targets, logits) * ops.sum(targets * weights, axis=-1)

    return loss if class_weights is None else weighted_loss


def softmax_cross_entropy(targets: Any, logits: Any) -> Any:
    """Returns -sum_k targets log softmax(logits), (B,)."""
    return -ops.sum(targets * ops.log_softmax(logits), axis=-1)


def sigmoid_cross_entropy(targets: Any, logits: Any) -> Any:
    """Returns the binary cross-entropies summed over the classes, (B,)."""
    # Neither term loses precision for large logits, and the gradient at zero is exact.
    losses = targets * ops.softplus(-logits) + (1.0 - targets) * ops.softplus(logits)
    return ops.sum(losses, axis=-1)


def smooth(targets: Any, label_smoothing: float) -> Any:
    """Returns targets mixed with the uniform distribution over the classes."""
    if label_smoothing == 0.0:
        return targets
    return targets * (1.0 - label_smoothing) + label_smoothing / targets.shape[-1]


def _mean_softmax(logits: Any) -> Any:
    return _mean_of_exponentials(ops.log_softmax(logits))


def _mean_sigmoid(logits: Any) -> Any:
    # log p - log (1 - p), each without a loss of precision near 0 and 1.
    positive = _mean_of_exponentials(ops.log_sigmoid(logits))
    return positive - _mean_of_exponentials(ops.log_sigmoid(-logits))


def _mean_of_exponentials(logarithms: Any) -> Any:
    """Returns the log of the mean of exp(logarithms) over the first axis."""
    return ops.logsumexp(logarithms, axis=0) - math.log(logarithms.shape[0])


#: By the value of the key `loss`; a new loss is one more line.
LOSSES = {
    "softmax": LossKind(softmax_cross_entropy, ops.softmax, _mean_softmax),
    "sigmoid": LossKind(sigmoid_cross_entropy, ops.sigmoid, _mean_sigmoid),
}

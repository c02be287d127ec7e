"""One answer from the several views of a video."""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from trainers.configuration.data_options import VIEW_REDUCTIONS
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

#: From the logits of all views, (views, B, K), to those of the videos, (B, K).
ViewReduction = Callable[[Any], Any]


def make_view_reduction(kind: str, loss: str) -> ViewReduction:
    """Returns a function from the logits of all views to logits of the videos.

    Args:
        kind: `"logits"` averages them (as the reference's ViViT), `"probabilities"` averages
            the probabilities, and returns the logits that stand for the average; `"max"`
            takes the largest logit of each class (usual for Charades).
        loss: The name of the loss, which says what probabilities are: `"softmax"` or
            `"sigmoid"`.

    Raises:
        ConfigurationError: If the kind is none of these.
    """
    averages = {"softmax": _mean_softmax, "sigmoid": _mean_sigmoid}
    reductions: dict[str, ViewReduction] = {
        "logits": lambda logits: ops.mean(logits, axis=0),
        "probabilities": averages[loss],
        "max": lambda logits: ops.max(logits, axis=0),
    }
    if kind not in reductions:
        raise ConfigurationError(
            f"video.view_reduction must be one of {', '.join(VIEW_REDUCTIONS)}. Received: {kind!r}."
            + did_you_mean(kind, VIEW_REDUCTIONS)
        )
    return reductions[kind]


def _mean_softmax(logits: Any) -> Any:
    return _mean_of_exponentials(ops.log_softmax(logits))


def _mean_sigmoid(logits: Any) -> Any:
    # log p - log (1 - p), each without the loss of digits near 0 and 1.
    positive = _mean_of_exponentials(ops.log_sigmoid(logits))
    return positive - _mean_of_exponentials(ops.log_sigmoid(-logits))


def _mean_of_exponentials(logarithms: Any) -> Any:
    """Returns the logarithm of the mean over the first axis."""
    return ops.logsumexp(logarithms, axis=0) - math.log(logarithms.shape[0])

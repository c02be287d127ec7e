"""Mean average precision, for examples with any number of labels."""

import numpy as np
from numpy.typing import NDArray

from trainers.utils.errors import ConfigurationError


def check_average_precision() -> None:
    """Checks that mean average precision can be computed.

    Raises:
        ConfigurationError: If scikit-learn is missing.
    """
    try:
        from sklearn.metrics import average_precision_score  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "data.multi_label is evaluated with scikit-learn: pip install scikit-learn"
        ) from error


def average_precisions(
    scores: NDArray[np.floating], targets: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Returns the average precision of each class; NaN for a class without positives.

    It is scikit-learn's `average_precision_score`: the area under the steps of precision
    over recall, without interpolation. A score that is not a number is the lowest.

    Args:
        scores: `(N, K)`, such as logits; only their order in a class matters.
        targets: `(N, K)` zeros and ones.

    Returns:
        `(K,)`, in [0, 1] or NaN.
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
    """Returns the mean over the classes that have positives; 0 if none has any.

    Args:
        precisions: From `average_precisions`.
    """
    known = precisions[~np.isnan(precisions)]
    return float(known.mean()) if known.size else 0.0

"""Global batches: whether one can be shared out evenly, and how many videos one may hold."""

import math
from collections.abc import Mapping

from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.examples import num_views
from trainers.utils.errors import ConfigurationError


def check_batch_size(batch_size: int, sharers: Mapping[str, int]) -> None:
    """Checks that a global batch can be cut into parts of equal size.

    Args:
        batch_size: Global batch size.
        sharers: Whatever cuts it, one after the other, with how many parts each makes;
            the names stand in the message.

    Raises:
        ConfigurationError: If it cannot, with batch sizes near by that can.
    """
    parts = math.prod(sharers.values())
    if batch_size % parts:
        smaller = batch_size // parts * parts
        cure = f"{smaller} or {smaller + parts}" if smaller else f"{parts}"
        listed = ", ".join(f"{name}: {count}" for name, count in sharers.items())
        raise ConfigurationError(
            f"batch_size: expected a multiple of {parts} ({listed}), received {batch_size}; "
            f"set batch_size to {cure}"
        )


def evaluation_batch_size(
    batch_size: int, preprocessing: Preprocessing, replicas: int, views: bool
) -> int:
    """Returns the global batch size of an evaluation; the metrics do not depend on it.

    Videos with all their views need about the memory of the batch of single clips, except
    that a replica takes at least one video.

    Args:
        batch_size: Of the configuration.
        preprocessing: What the inputs are made by.
        replicas: Those of all hosts; where there are several views, the result is a multiple.
        views: Whether videos are judged by all their views.
    """
    count = num_views(preprocessing) if views else 1
    return batch_size if count == 1 else max(1, batch_size // (count * replicas)) * replicas

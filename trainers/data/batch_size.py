"""Whether a global batch can be shared out evenly."""

import math
from collections.abc import Mapping

from trainers.errors import ConfigurationError


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

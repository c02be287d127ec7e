"""Checks the options of a conversion: frame rate, size, quality and shards."""

from dataclasses import dataclass

from trainers.data.video_files import FRAMES_PER_SECOND
from trainers.data.video_files import MIN_SIDE
from trainers.utils.errors import ConfigurationError


@dataclass(frozen=True)
class ConversionOptions:
    """How videos become records.

    Args:
        num_shards: files of the split.
        frames_per_second: frames taken from each second, 25 by default.
        min_side: pixels of the shorter side, 256 by default; smaller videos keep theirs.
        jpeg_quality: 1 to 100, 95 by default.

    Raises:
        ConfigurationError: a value is out of range.
    """

    num_shards: int
    frames_per_second: float = FRAMES_PER_SECOND
    min_side: int = MIN_SIDE
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        for name, flag, smallest, largest in (
            ("num_shards", "shards", 1, 99_999),
            ("frames_per_second", "frames_per_second", 0.01, 1000),
            ("min_side", "min_side", 1, 65_500),
            ("jpeg_quality", "jpeg_quality", 1, 100),
        ):
            value = getattr(self, name)
            if not smallest <= value <= largest:
                raise ConfigurationError(
                    f"--{flag}: expected {smallest} to {largest}, received {value}."
                )

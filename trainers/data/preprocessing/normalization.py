"""Normalizes uint8 pixels on the device.

Batches cross to the accelerator as uint8, a quarter of the traffic of float32, and
are normalized inside the compiled step.
"""

from typing import Any

from keras import ops

from trainers.configuration.data_options import CHANNEL_STATISTICS
from trainers.configuration.data_options import check_normalization

# The epsilon of "clip", in units of a byte: below it, only noise is left.
_SMALLEST_DEVIATION = 1.0


def channel_statistics(
    kind: str, channels: int = 3
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Returns mean and deviation in units of a byte, one number for all channels or one each.

    Those of grey are the averages of red, green and blue. None for "clip", where each clip has its
    own.
    """
    check_normalization(kind)
    statistics = CHANNEL_STATISTICS.get(kind)
    if statistics is None or channels != 1:
        return statistics
    mean, deviation = ((sum(each) / len(each),) for each in statistics)
    return mean, deviation


def normalize(images: Any, kind: str) -> Any:
    """Scales and shifts images to float32 of the same shape.

    Args:
        images: uint8 (..., channels).
        kind: "imagenet" (mean 0 and deviation 1 over ImageNet, each channel; see
            `channel_statistics`), "unit" (-1 to 1), "zero_one" (0 to 1) or "clip" (mean 0
            and deviation 1 over the time, height, width and channels of each clip; a
            deviation below 1 / 255 of the range counts as that, so a clip of one colour
            becomes zeros). "clip" takes batches of clips, (..., batch, frames, height,
            width, channels).

    Raises:
        ConfigurationError: if `kind` is unknown, or is "clip" for a batch of images.
    """
    # A single clip cannot be distinguished from a batch of images.
    check_normalization(kind, clips=len(images.shape) >= 5)
    statistics = channel_statistics(kind, images.shape[-1])
    if statistics is None:
        return _normalize_clips(images)
    mean, deviation = statistics
    centred = ops.cast(images, "float32") - ops.convert_to_tensor(mean, "float32")
    return centred / ops.convert_to_tensor(deviation, "float32")


def _normalize_clips(clips: Any) -> Any:
    # Values near zero keep the sums precise.
    pixels = ops.cast(clips, "float32") - 127.5
    centred = pixels - _clip_mean(pixels)
    deviation = ops.sqrt(_clip_mean(ops.square(centred)))
    return centred / ops.maximum(deviation, _SMALLEST_DEVIATION)


def _clip_mean(values: Any) -> Any:
    """Returns float32 (..., 1, 1, 1, 1), the mean of each clip.

    It averages the means of equal parts: XLA adds up a long axis one by one, and a float32 sum
    would lose precision over the millions of values of a clip.
    """
    for axis in (-1, -2, -3, -4):
        values = ops.mean(values, axis=axis, keepdims=True)
    return values

"""Cuts square crops out of a picture and resizes them with exact arithmetic."""

import numpy as np
from numpy.typing import NDArray

# Weights are multiples of 2**-18 and pixels are whole numbers below 2**8, so every
# sum of products fits into a float64 without rounding: the result is the same on
# every machine, whatever order the linear algebra library adds in.
WEIGHT_UNITS = 2.0**18


def resize_weights(start: float, length: float, size: int, limit: int) -> NDArray[np.float64]:
    """Returns the matrix that resizes one axis with a triangle filter, float64 (size, limit).

    The filter widens with the scale when shrinking, so nothing aliases. `start` and `length` give
    the crop, in pixels; rows sum to 1 up to rounding to 2**-18.
    """
    scale = length / size
    centres = start + (np.arange(size) + 0.5) * scale
    positions = np.arange(limit) + 0.5
    distances = np.abs(positions - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distances)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.round(weights * WEIGHT_UNITS) / WEIGHT_UNITS


def square_crop(
    image: NDArray[np.uint8], left: float, top: float, side: float, size: int
) -> NDArray[np.uint8]:
    """Cuts a square out of a picture and resizes it to (size, size, channels) uint8.

    The square lies within the picture; its place and side, in pixels, may be fractions.
    """
    height, width, channels = image.shape
    rows = resize_weights(top, side, size, height)
    columns = resize_weights(left, side, size, width)
    reach = 2 + int(side / size)  # the filter looks this far beyond the square
    first, last = max(0, int(top) - reach), min(height, int(top + side) + reach)
    begin, end = max(0, int(left) - reach), min(width, int(left + side) + reach)
    part = image[first:last, begin:end].astype(np.float64)
    part = rows[:, first:last] @ part.reshape(last - first, -1)
    part = part.reshape(size, end - begin, channels)  # (size, width, channels)
    part = np.matmul(columns[:, begin:end], part)  # (size, size, channels)
    pixels: NDArray[np.uint8] = np.clip(np.floor(part + 0.5), 0, 255).astype(np.uint8)
    return pixels

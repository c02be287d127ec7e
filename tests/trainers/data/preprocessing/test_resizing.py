import numpy as np
import pytest
import tensorflow as tf

from trainers.data.preprocessing.augmentation import resize
from trainers.data.preprocessing.augmentation import to_bytes


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(7, 9), (20, 31), (41, 30), (90, 77), (20, 30)])
@pytest.mark.parametrize("frames", [(), (3,)])
def test_resize_is_that_of_bytes(
    interpolation: str, size: tuple[int, int], frames: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*frames, 41, 30, 3), np.uint8)
    expected = tf.cast(tf.image.resize(pixels, size, interpolation), tf.float32)
    found = resize(tf.constant(pixels), size, interpolation)
    np.testing.assert_array_equal(found, expected)
    rounded = np.clip(np.round(expected), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(to_bytes(found), rounded)

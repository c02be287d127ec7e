"""Crops: right place, no aliasing, exact for constant pictures."""

import numpy as np
import pytest

from trainers.utils.resampling import resize_weights
from trainers.utils.resampling import square_crop


def test_whole_picture_at_its_own_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_array_equal(square_crop(image, 0, 0, 16, 16), image)


def test_whole_pixels_are_cut_out() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    crop = square_crop(image, 7, 5, 8, 8)
    np.testing.assert_array_equal(crop, image[5:13, 7:15])


@pytest.mark.parametrize("side", [3.7, 16.0, 60.3])
def test_constant_picture_stays_constant(side: float) -> None:
    image = np.full((64, 64, 1), 200, np.uint8)
    crop = square_crop(image, 1.2, 2.9, side, 16)
    np.testing.assert_array_equal(crop, 200)


def test_shrinking_averages() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 200
    crop = square_crop(stripes, 0, 0, 64, 8)
    assert abs(crop.astype(int) - 100).max() <= 7


def test_weights_sum_to_one() -> None:
    weights = resize_weights(3.3, 40.0, 8, 50)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-4)

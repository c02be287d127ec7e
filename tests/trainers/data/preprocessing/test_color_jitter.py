import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.fake_videos import numbered_video
from trainers.data.preprocessing.augmentation import color_drop
from trainers.data.preprocessing.augmentation import color_jitter

Change = Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]


def _clip() -> np.ndarray:
    video = numbered_video(3, 5, 6)
    video[..., 2] = 20 + 90 * video[..., 2]
    return video


def _pixel_by_pixel(clip: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Return what the four changes do, by Python's own colour arithmetic."""
    brightness, saturation, contrast, hue = changes
    pixels = np.clip(clip / 255.0 + brightness * 32 / 255, 0, 1).reshape(-1, 3)
    for pixel in pixels:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        pixel[:] = colorsys.hsv_to_rgb(h, min(s * (1 + 0.4 * saturation), 1), v)
    mean = pixels.mean(axis=0)
    pixels = np.clip(mean + (1 + 0.4 * contrast) * (pixels - mean), 0, 1)
    for pixel in pixels:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        pixel[:] = colorsys.hsv_to_rgb((h + 0.2 * hue) % 1, s, v)
    return 255 * pixels.reshape(clip.shape)


@pytest.mark.parametrize("seed", range(6))
def test_jitter_is_brightness_saturation_contrast_hue(seed: int) -> None:
    clip = _clip()
    draws = tf.random.stateless_uniform((5,), (seed, 1), alg="philox").numpy()
    expected = _pixel_by_pixel(clip, 2 * draws[1:] - 1)
    received = color_jitter(tf.constant(clip), tf.constant([seed, 1]), 1.0).numpy()
    assert received.dtype == np.uint8
    np.testing.assert_allclose(received, expected, atol=0.51)
    assert np.abs(received.astype(int) - clip).max() > 3


def test_draws_cover_the_range() -> None:
    # Only the brightness moves a black clip.
    black = tf.zeros((1, 3, 3, 3), tf.uint8)
    values = [int(color_jitter(black, tf.constant([0, s]), 1.0)[0, 0, 0, 0]) for s in range(60)]
    assert 20 < sum(value == 0 for value in values) < 40
    assert 28 <= max(values) <= 32


@pytest.mark.parametrize("change", [color_jitter, color_drop])
def test_equal_pixels_of_two_frames_stay_equal(change: Change) -> None:
    # The last frame is dark: a mean of its own would treat it differently.
    clip = _clip()
    clip[2] = 0
    clip[2, 0] = clip[0, 0]
    changed = change(tf.constant(clip), tf.constant([5, 6]), 1.0).numpy()
    np.testing.assert_array_equal(changed[2, 0], changed[0, 0])
    assert not np.array_equal(changed, clip)


@pytest.mark.parametrize("change", [color_jitter, color_drop])
def test_probability(change: Change) -> None:
    clip = tf.constant(_clip())
    run = tf.function(lambda seed, probability: change(clip, seed, probability))
    changed = [
        not np.array_equal(run(tf.constant([seed, 0]), tf.constant(0.25)), clip)
        for seed in range(200)
    ]
    assert 30 < sum(changed) < 70
    np.testing.assert_array_equal(run(tf.constant([0, 0]), tf.constant(0.0)), clip)


@pytest.mark.parametrize("change", [color_jitter, color_drop])
def test_same_seed_same_bytes(change: Change) -> None:
    clip = tf.constant(_clip())
    first, second = (change(clip, tf.constant([3, 4]), 0.9) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_dropped_colors_are_the_brightness() -> None:
    clip = _clip()
    grey = color_drop(tf.constant(clip), tf.constant([0, 0]), 1.0).numpy()
    assert grey.shape == clip.shape and grey.dtype == np.uint8
    expected = clip @ np.array([0.299, 0.587, 0.114])
    for channel in range(3):
        np.testing.assert_allclose(grey[..., channel], expected, atol=0.51)

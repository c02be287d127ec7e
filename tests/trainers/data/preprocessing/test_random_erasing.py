import numpy as np
import pytest
import tensorflow as tf

from trainers.data.preprocessing.augmentation import random_erasing

pytestmark = pytest.mark.every_backend


def _erased(shape: tuple[int, ...], count: int, probability: float = 1.0) -> np.ndarray:
    """Returns what becomes of black images, each with a seed of its own."""

    def erase(number: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([tf.constant(5, tf.int64), number])
        return random_erasing(tf.zeros(shape, tf.uint8), seed, probability)

    return np.stack(list(tf.data.Dataset.range(count).map(erase).as_numpy_iterator()))


def _rectangle(image: np.ndarray) -> tuple[slice, slice]:
    """Returns the rows and columns in which an image is not black."""
    changed = image.any(axis=-1)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def test_one_rectangle_is_filled_with_random_pixels() -> None:
    shares, ratios = [], []
    for image in _erased((40, 50, 3), 200):
        rows, columns = _rectangle(image)
        inside = image[rows, columns]
        # Hardly a byte of random pixels is 0.
        assert (inside == 0).mean() < 0.03
        shares.append(inside[..., 0].size / 2000)
        ratios.append(inside.shape[0] / inside.shape[1])
        if inside.size > 500:
            assert 110 < inside.mean() < 145 and 65 < inside.std() < 82
    assert 0.01 < min(shares) < 0.05 and 0.28 < max(shares) < 0.36
    assert 0.25 < min(ratios) < 0.4 and 2.5 < max(ratios) < 4
    assert abs(np.mean(np.log(ratios))) < 0.15


def test_all_frames_of_a_clip_are_erased_alike() -> None:
    clips, images = _erased((3, 16, 20, 3), 4), _erased((16, 20, 3), 4)
    np.testing.assert_array_equal(clips, np.stack([images] * 3, axis=1))


def test_a_share_of_the_images_is_erased() -> None:
    erased = _erased((8, 8, 3), 400, 0.25).any(axis=(1, 2, 3))
    assert 70 < erased.sum() < 130


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 1, 3), (5, 64, 3)])
def test_any_size_can_be_erased(shape: tuple[int, ...]) -> None:
    assert _erased(shape, 5).any(axis=(1, 2, 3)).all()

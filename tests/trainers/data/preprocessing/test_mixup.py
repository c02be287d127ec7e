import numpy as np
import pytest
import tensorflow as tf

from trainers.data.preprocessing.mixup import cutmix
from trainers.data.preprocessing.mixup import cutmix_boxes
from trainers.data.preprocessing.mixup import mixing_weights
from trainers.data.preprocessing.mixup import mixup


def _batch(size: int) -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (size, 4, 4, 3), dtype=np.uint8)
    return tf.constant(images), tf.one_hot(np.arange(size), size)


def _weights(size: int, seed: int = 2, alpha: float = 1.0) -> tf.Tensor:
    return mixing_weights(size, tf.constant([1, seed]), alpha)


def test_targets_still_sum_to_one() -> None:
    images, targets = _batch(16)
    for alpha in (0.01, 0.2, 1.0):
        _, mixed = mixup(images, targets, _weights(16, alpha=alpha))
        assert mixed.dtype == tf.float32
        np.testing.assert_allclose(tf.reduce_sum(mixed, 1), np.ones(16), atol=1e-6)


def test_images_are_blended_with_the_weights_of_the_targets() -> None:
    images, targets = _batch(8)
    mixed_images, mixed_targets = mixup(images, targets, _weights(8, alpha=0.8))
    assert mixed_images.dtype == tf.uint8
    expected = np.einsum("bk,khwc->bhwc", mixed_targets, images.numpy().astype(float))
    assert np.abs(mixed_images.numpy() - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [2, 8, 9])
def test_every_example_has_its_own_weight_and_another_as_partner(size: int) -> None:
    images, targets = _batch(size)
    _, mixed = mixup(images, targets, _weights(size))
    assert ((mixed.numpy() > 0).sum(axis=1) == 2).all()
    assert len(np.unique(np.diag(mixed.numpy()))) == size


def test_parts_of_an_even_size_are_blended_as_the_whole() -> None:
    images, targets = _batch(12)
    weights = _weights(12)
    whole = mixup(images, targets, weights)
    parts = [mixup(images[i : i + 4], targets[i : i + 4], weights[i : i + 4]) for i in (0, 4, 8)]
    for expected, found in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(tf.concat(found, axis=0), expected)


def test_same_seed_same_weights() -> None:
    first, second, other = (_weights(8, seed) for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_weights_follow_the_beta_distribution() -> None:
    weights = _weights(4000, alpha=0.5).numpy()
    assert abs(weights.mean() - 0.5) < 0.02
    assert abs(weights.var() - 0.125) < 0.005  # 1 / (4 (2 alpha + 1))


@pytest.mark.parametrize("alpha", [1e-3, 0.01, 0.2, 1.0, 8.0, 1e6])
def test_shares_of_the_beta_distribution(alpha: float) -> None:
    count = 100_000
    weights = _weights(count, alpha=alpha).numpy()
    exponent = tf.constant(alpha, tf.float64)
    for low, high in ((0.01, 0.99), (0.2, 0.5), (0.2, 0.7)):
        lower, upper = (float(tf.math.betainc(exponent, exponent, x)) for x in (low, high))
        expected = upper - lower
        found = ((weights > low) & (weights < high)).mean()
        assert abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / count) + 1e-6


def test_the_smallest_alpha_blends_nothing() -> None:
    weights = _weights(1000, alpha=5e-324).numpy()
    assert set(np.unique(weights)) == {0.0, 1.0}
    assert 400 < weights.sum() < 600


def test_one_example_is_left_alone() -> None:
    images, targets = _batch(1)
    mixed_images, mixed_targets = mixup(images, targets, _weights(1))
    np.testing.assert_array_equal(mixed_images, images)
    np.testing.assert_allclose(mixed_targets, targets)


def _boxes(size: int, height: int, width: int, alpha: float = 1.0) -> np.ndarray:
    return cutmix_boxes(size, tf.constant([1, 2]), alpha, height, width).numpy()


@pytest.mark.parametrize("size", [2, 8, 9])
@pytest.mark.parametrize("frames", [(), (3,)])
def test_cutmix_pastes_the_box_of_the_partner(size: int, frames: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (size, *frames, 6, 10, 3), dtype=np.uint8)
    targets = np.eye(size, dtype=np.float32)
    boxes = _boxes(size, 6, 10)
    found, mixed = cutmix(tf.constant(images), tf.constant(targets), tf.constant(boxes))
    partners = [min(number ^ 1, size - 1) for number in range(size)]
    if size % 2:
        partners[-1] = size - 2
    for number, (top, bottom, left, right) in enumerate(boxes):
        expected = images[number].copy()
        box = (..., slice(top, bottom), slice(left, right), slice(None))
        expected[box] = images[partners[number]][box]
        np.testing.assert_array_equal(found[number], expected)
        share = (bottom - top) * (right - left) / 60
        expected_target = (1 - share) * targets[number] + share * targets[partners[number]]
        np.testing.assert_allclose(mixed[number], expected_target, atol=1e-6)
    assert len(np.unique(boxes, axis=0)) > 1


def test_boxes_lie_in_the_image_and_have_its_shape() -> None:
    top, bottom, left, right = _boxes(2000, 60, 100).T
    for begin, end, side in ((top, bottom, 60), (left, right, 100)):
        assert (begin >= 0).all() and (begin <= end).all() and (end <= side).all()
        assert begin.min() == 0 and end.max() == side
    uncut = (top > 0) & (bottom < 60) & (left > 0) & (right < 100)
    heights, widths = (bottom - top)[uncut], (right - left)[uncut]
    assert np.abs(heights / 60 - widths / 100).max() < 0.04


def test_shares_of_cutmix_follow_the_beta_distribution() -> None:
    top, bottom, _, _ = _boxes(4000, 1000, 1000, alpha=1.0).T
    # A box of height s is not cut at 1 - s of the places; the mean of s, the root of a uniform
    # share, is 2 / 3.
    uncut = (top > 0) & (bottom < 1000)
    assert abs(uncut.mean() - 1 / 3) < 0.03

import numpy as np
import tensorflow as tf

from trainers.data.mixing import mixup


def _batch(size: int) -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (size, 4, 4, 3), dtype=np.uint8)
    return tf.constant(images), tf.one_hot(np.arange(size), size)


def test_targets_still_sum_to_one() -> None:
    images, targets = _batch(16)
    for alpha in (0.01, 0.2, 1.0):
        _, mixed = mixup(images, targets, tf.constant([1, 2]), alpha)
        assert mixed.dtype == tf.float32
        np.testing.assert_allclose(tf.reduce_sum(mixed, 1), np.ones(16), atol=1e-6)


def test_images_are_blended_with_the_weights_of_the_targets() -> None:
    images, targets = _batch(8)
    mixed_images, mixed_targets = mixup(images, targets, tf.constant([1, 2]), 0.8)
    assert mixed_images.dtype == tf.uint8
    expected = np.einsum("bk,khwc->bhwc", mixed_targets, images.numpy().astype(float))
    assert np.abs(mixed_images.numpy() - expected).max() <= 0.5 + 1e-3


def test_every_example_has_its_own_weight_and_another_as_partner() -> None:
    images, targets = _batch(8)
    _, mixed = mixup(images, targets, tf.constant([1, 2]), 1.0)
    assert ((mixed.numpy() > 0).sum(axis=1) == 2).all()
    assert len(np.unique(np.diag(mixed.numpy()))) == 8


def test_same_seed_same_bytes() -> None:
    images, targets = _batch(8)
    first, second, other = (
        mixup(images, targets, tf.constant([1, seed]), 1.0)[0].numpy() for seed in (2, 2, 3)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_weights_follow_the_beta_distribution() -> None:
    images = tf.zeros((4000, 1, 1, 3), tf.uint8)
    targets = tf.one_hot(tf.range(4000) % 2, 2)
    _, mixed = mixup(images, targets, tf.constant([4, 2]), 0.5)
    weights = mixed.numpy()[::2, 0]
    assert abs(weights.mean() - 0.5) < 0.03
    assert abs(weights.var() - 0.125) < 0.01  # 1 / (4 (2 alpha + 1))


def test_one_example_is_left_alone() -> None:
    images, targets = _batch(1)
    mixed_images, mixed_targets = mixup(images, targets, tf.constant([1, 2]), 1.0)
    np.testing.assert_array_equal(mixed_images, images)
    np.testing.assert_allclose(mixed_targets, targets)

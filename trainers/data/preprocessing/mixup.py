"""Blends pairs of images and of their targets for training (mixup)."""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def mixing_weights(batch_size: int, seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Returns the share that each example of a batch keeps, float32 (batch_size,) in [0, 1].

    Drawn from Beta(alpha, alpha) by a stateless seed, integer (2,), for the global batch, so that
    each host can take its part of the same numbers.
    """
    # Beta(a, a) = X / (X + Y) for two independent Gamma(a) numbers. With a small alpha both
    # underflow, so their logarithms are drawn: log Gamma(a) = log Gamma(a + 1) + log(U) / a.
    gamma_seed, uniform_seed = tf.unstack(tf.random.split(seed, alg="philox"))
    shape = (2, batch_size)
    gammas = tf.random.stateless_gamma(shape, gamma_seed, alpha=alpha + 1.0, dtype=tf.float64)
    uniform = tf.random.stateless_uniform(shape, uniform_seed, dtype=tf.float64, alg="philox")
    larger = tf.math.log(gammas)
    powers = tf.math.log1p(-uniform)  # 1 - U is never 0
    weights = tf.sigmoid(larger[0] - larger[1] + (powers[0] - powers[1]) / alpha)
    return tf.cast(weights, tf.float32)


def mixup(images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends the examples of a batch in pairs: the first with the second, and so on.

    The order of a training batch is random already, so a neighbour is as good as a random partner.
    Pairs stay together when a batch is cut into parts of an even size. The last of an odd number is
    blended with the one before it. The blend is rounded back to bytes, because images cross to the
    device as uint8: an error of at most 0.5 / 255 of the range.

    Args:
        images: uint8 (batch, [frames,] height, width, 3), of a known batch size.
        targets: float32 (batch, num_classes).

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    partners = _partners(images.shape[0])
    mixed_targets = _blend(targets, partners, weights[:, tf.newaxis])
    pixels = tf.cast(images, tf.float32)
    by_image = tf.reshape(weights, (-1, *[1] * (len(images.shape) - 1)))
    mixed_pixels = _blend(pixels, partners, by_image)
    return tf.cast(tf.round(mixed_pixels), tf.uint8), mixed_targets


def _partners(batch_size: int) -> NDArray[np.int64]:
    partners: NDArray[np.int64] = np.arange(batch_size) ^ 1
    if batch_size % 2:
        partners[-1] = max(batch_size - 2, 0)
    return partners


def _blend(values: tf.Tensor, partners: NDArray[np.int64], weights: tf.Tensor) -> tf.Tensor:
    return weights * values + (1.0 - weights) * tf.gather(values, partners)

"""Mixup: training on blends of two images and of their targets."""

import tensorflow as tf


def mixup(
    images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, alpha: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend each example with the next one of the batch.

    The order of a training batch is random already, so that the next example is as
    good as a random partner; and it is never the example itself, unless it is alone.

    The blend is rounded back to bytes, because images cross to the device as uint8:
    an error of at most 0.5 / 255 of the range. Targets are blended in float32.

    Args:
        images: uint8 (batch, height, width, 3).
        targets: float32 (batch, num_classes).
        seed: stateless seed, integer (2,); the same seed gives the same blend.
        alpha: the weight of each example is drawn from Beta(alpha, alpha).

    Returns:
        Blended images and targets, of the shapes and types of the arguments. Where
        the targets of all examples sum to 1, so do the blended ones.

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    weights = _beta_weights(tf.shape(images)[:1], seed, alpha)
    mixed_targets = _blend(targets, weights[:, tf.newaxis])
    pixels = tf.cast(images, tf.float32)
    mixed_pixels = _blend(pixels, weights[:, tf.newaxis, tf.newaxis, tf.newaxis])
    return tf.cast(tf.round(mixed_pixels), tf.uint8), mixed_targets


def _beta_weights(shape: tf.Tensor, seed: tf.Tensor, alpha: float) -> tf.Tensor:
    # Beta(a, a) = X / (X + Y) for two independent Gamma(a) numbers; in float64
    # because a small alpha makes both underflow in float32.
    gammas = tf.random.stateless_gamma(
        tf.concat([[2], shape], axis=0), seed, alpha=alpha, dtype=tf.float64
    )
    weights = tf.math.divide_no_nan(gammas[0], gammas[0] + gammas[1])
    return tf.cast(weights, tf.float32)


def _blend(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    partners = tf.roll(values, shift=-1, axis=0)
    return weights * values + (1.0 - weights) * partners

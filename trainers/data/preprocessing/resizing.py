"""Resizes images and frames on the host."""

import tensorflow as tf

# Up to this many source pixels per pixel of the result, a cast costs less than it saves.
_LARGEST_RATIO_TO_CAST = 3


def resize(pixels: tf.Tensor, size: tuple[int, int] | tf.Tensor, interpolation: str) -> tf.Tensor:
    """Returns images, uint8 ([frames,] height, width, 3), of another size, float32.

    Without antialiasing, as in the published recipes.
    """

    def resized(pixels: tf.Tensor) -> tf.Tensor:
        # Pixels that have the size already keep their type.
        resized = tf.image.resize(pixels, size, interpolation, antialias=False)
        return tf.cast(resized, tf.float32)

    # TensorFlow vectorizes only the resize of float32; the result is the same.
    ratio = tf.reduce_prod(tf.shape(pixels)[-3:-1]) / tf.reduce_prod(size)
    return tf.cond(
        ratio <= _LARGEST_RATIO_TO_CAST,
        lambda: resized(tf.cast(pixels, tf.float32)),
        lambda: resized(pixels),
    )

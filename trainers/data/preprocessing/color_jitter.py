"""Changes colours at random, in the same way for all frames of a clip.

Pure TensorFlow operations on uint8, with all randomness from a given seed.
"""

import tensorflow as tf

from trainers.data.preprocessing.randaugment import grey

# The ranges of the published video recipes.
_MAX_BRIGHTNESS = 32.0 / 255.0  # of the range of a pixel
_MAX_SATURATION = 0.4
_MAX_CONTRAST = 0.4
_MAX_HUE = 0.2  # of the colour circle


def color_jitter(clip: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Changes brightness, saturation, contrast and hue, in this order.

    Brightness is shifted by up to 32 / 255 of the range, saturation and contrast are
    multiplied by 0.6 to 1.4 and the hue turns by up to a fifth of the circle, each drawn
    uniformly. Contrast is measured from the mean of each channel over the whole clip, so
    that equal pixels of two frames stay equal. Pixels are kept in range after each step
    and rounded once, at the end.

    Args:
        clip: uint8 (frames, height, width, 3).
        seed: stateless seed, integer (2,); the same seed gives the same bytes.
        probability: share of the clips that are changed.
    """
    draws = tf.random.stateless_uniform((5,), seed, alg="philox")
    changes = 2.0 * draws[1:] - 1.0
    return tf.cond(
        draws[0] < probability, lambda: _jittered(clip, changes), lambda: tf.identity(clip)
    )


def color_drop(clip: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Turns a share of the clips to grey; for the arguments see `color_jitter`."""
    draw = tf.random.stateless_uniform((), seed, alg="philox")
    return tf.cond(draw < probability, lambda: _without_color(clip), lambda: tf.identity(clip))


def _jittered(clip: tf.Tensor, changes: tf.Tensor) -> tf.Tensor:
    """Applies four changes, each -1 to 1."""
    brightness, saturation, contrast, hue = tf.unstack(changes)
    pixels = tf.cast(clip, tf.float32) / 255.0
    pixels = _in_range(pixels + _MAX_BRIGHTNESS * brightness)
    pixels = _in_range(tf.image.adjust_saturation(pixels, 1.0 + _MAX_SATURATION * saturation))
    mean = tf.reduce_mean(pixels, axis=(0, 1, 2))
    pixels = _in_range(mean + (1.0 + _MAX_CONTRAST * contrast) * (pixels - mean))
    pixels = _in_range(tf.image.adjust_hue(pixels, _MAX_HUE * hue))
    return tf.cast(tf.round(255.0 * pixels), tf.uint8)


def _without_color(clip: tf.Tensor) -> tf.Tensor:
    pixels = tf.cast(tf.round(grey(clip)), tf.uint8)
    return tf.broadcast_to(pixels, tf.shape(clip))


def _in_range(pixels: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(pixels, 0.0, 1.0)

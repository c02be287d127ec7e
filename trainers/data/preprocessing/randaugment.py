"""Applies a few random operations of one common strength to each image or clip (RandAugment).

Pure TensorFlow operations on uint8, with all randomness from a given seed. They run
on the host: the geometric ones have no kernel for accelerators.
"""

import math
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from trainers.configuration.data_options import FULL_MAGNITUDE
from trainers.configuration.data_options import check_randaugment
from trainers.utils.errors import ConfigurationError


def randaugment(image: tf.Tensor, seed: tf.Tensor, layers: int, magnitude: float) -> tf.Tensor:
    """Applies `layers` operations, each drawn from all with equal chance.

    The frames of a clip all get the same operations, in the same direction.

    Args:
        image: uint8 (height, width, 3), or a clip (frames, height, width, 3).
        seed: stateless seed, integer (2,); the same seed gives the same bytes.
        layers: number of operations one after another, 0 or more.
        magnitude: common strength, 0 to 30. (Where a scale of 0 to 10 is used, as
            in `RandAugment(2, 10)` of some recipes, take three times its number.)

    Reference:
        Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a
        Reduced Search Space", NeurIPS 2020.
    """
    check_randaugment(layers, magnitude)
    if layers == 0:
        return image
    operations = tuple(OPERATIONS.values())
    draws = tf.random.stateless_uniform((layers, 2), seed, alg="philox")
    choices = tf.cast(draws[:, 0] * len(operations), tf.int32)
    signs = tf.where(draws[:, 1] < 0.5, -1.0, 1.0)
    strength = magnitude / FULL_MAGNITUDE
    shape = image.shape
    for layer in range(layers):
        branches = [partial(operation, image, strength, signs[layer]) for operation in operations]
        # A switch runs only one branch; selecting among results would run them all.
        image = tf.ensure_shape(tf.switch_case(choices[layer], branches), shape)
    return image


def apply_operation(
    name: str, image: tf.Tensor, magnitude: float, sign: float | tf.Tensor = 1.0
) -> tf.Tensor:
    """Applies one operation of `OPERATIONS` by name, with a magnitude of 0 to 30.

    `sign` is -1 or 1, the direction of operations that have one.
    """
    check_randaugment(1, magnitude)
    if name not in OPERATIONS:
        raise ConfigurationError(
            f"unknown operation: expected one of {', '.join(OPERATIONS)}, received {name!r}"
        )
    sign = tf.convert_to_tensor(sign, tf.float32)
    return OPERATIONS[name](image, magnitude / FULL_MAGNITUDE, sign)


Operation = Callable[[tf.Tensor, float, tf.Tensor], tf.Tensor]

# The effect of each operation at full strength; the usual ranges of RandAugment.
_MAX_ROTATION = math.radians(30.0)
_MAX_SHEAR = 0.3
_MAX_TRANSLATION = 150.0 / 331.0  # of the side of the image
_MAX_ENHANCEMENT = 0.9
_MAX_POSTERIZED_BITS = 4

_FILL = 128.0  # mid grey where a geometric operation has nothing to show
_LUMA = (0.299, 0.587, 0.114)
_SMOOTHING = ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 1.0))


def identity(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Returns the image."""
    del strength, sign
    return tf.identity(image)


def autocontrast(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the full range."""
    del strength, sign
    pixels = tf.cast(image, tf.float32)
    low = tf.reduce_min(pixels, axis=_positions(image))
    high = tf.reduce_max(pixels, axis=_positions(image))
    stretched = (pixels - low) * (255.0 / tf.maximum(high - low, 1.0))
    return _to_bytes(tf.where(high > low, stretched, pixels))


def equalize(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Flattens the histogram of each channel."""
    del strength, sign
    # Channel c uses the table entries 256 c ... 256 c + 255.
    codes = tf.cast(image, tf.int32) + tf.constant([0, 256, 512])
    counts = tf.math.bincount(tf.reshape(codes, [-1]), minlength=768, maxlength=768)
    counts = tf.reshape(counts, (3, 256))
    brightest = tf.reduce_max(image, axis=_positions(image))
    last_count = tf.gather(counts, tf.cast(brightest, tf.int32), batch_dims=1)
    step = (tf.reduce_sum(counts, axis=1) - last_count) // 255
    step = step[:, tf.newaxis]  # (3, 1)
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    # A channel with hardly more than one value has no histogram to flatten.
    table = tf.where(step > 0, table, tf.range(256))
    return tf.gather(tf.cast(tf.reshape(table, [-1]), tf.uint8), codes)


def posterize(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Clears the lowest bits."""
    del sign
    bits = round(strength * _MAX_POSTERIZED_BITS)
    return tf.bitwise.bitwise_and(image, tf.constant(256 - 2**bits & 255, tf.uint8))


def solarize(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Inverts the pixels above a threshold."""
    del sign
    threshold = round(256 * (1.0 - strength))
    return tf.where(tf.cast(image, tf.int32) < threshold, image, 255 - image)


def color(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves away from, or towards, the grey image."""
    return _enhance(image, grey(image), strength, sign)


def contrast(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves away from, or towards, the mean grey."""
    return _enhance(image, tf.reduce_mean(grey(image)), strength, sign)


def brightness(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves away from, or towards, black."""
    return _enhance(image, tf.constant(0.0), strength, sign)


def sharpness(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves away from, or towards, the smoothed image; the border stays."""
    frames = tf.cast(_frames(image), tf.float32)
    kernel = tf.constant(_SMOOTHING)[:, :, tf.newaxis, tf.newaxis] / 13.0
    kernel = tf.tile(kernel, (1, 1, 3, 1))
    smooth = tf.nn.depthwise_conv2d(frames, kernel, (1, 1, 1, 1), "VALID")
    change = smooth - frames[:, 1:-1, 1:-1]
    smooth_frames = frames + tf.pad(change, ((0, 0), (1, 1), (1, 1), (0, 0)))
    smooth_image = tf.reshape(smooth_frames, tf.shape(image))
    return _enhance(image, smooth_image, strength, sign)


def rotate(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Rotates about the centre."""
    angle = sign * (strength * _MAX_ROTATION)
    return _transform(image, tf.cos(angle), -tf.sin(angle), tf.sin(angle))


def shear_x(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Shifts rows by their distance from the centre."""
    return _transform(image, x_by_y=sign * (strength * _MAX_SHEAR))


def shear_y(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Shifts columns by their distance from the centre."""
    return _transform(image, y_by_x=sign * (strength * _MAX_SHEAR))


def translate_x(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Shifts to the left or right."""
    share = sign * (strength * _MAX_TRANSLATION)
    width = tf.cast(tf.shape(image)[-2], tf.float32)
    return _transform(image, shift_x=tf.round(share * width))


def translate_y(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Shifts up or down."""
    share = sign * (strength * _MAX_TRANSLATION)
    height = tf.cast(tf.shape(image)[-3], tf.float32)
    return _transform(image, shift_y=tf.round(share * height))


OPERATIONS: dict[str, Operation] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "solarize": solarize,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}


def grey(image: tf.Tensor) -> tf.Tensor:
    """Returns the brightness of each pixel, float32 with one channel."""
    weighted = tf.cast(image, tf.float32) * tf.constant(_LUMA)
    return tf.reduce_sum(weighted, axis=-1, keepdims=True)


def _positions(image: tf.Tensor) -> tuple[int, ...]:
    """Returns all axes except that of the channels."""
    return tuple(range(len(image.shape) - 1))


def _frames(image: tf.Tensor) -> tf.Tensor:
    """Returns (frames, height, width, 3) of a clip, or of an image as its only frame."""
    return image[tf.newaxis] if len(image.shape) == 3 else image


def _to_bytes(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def _enhance(image: tf.Tensor, plain: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves each pixel away from (sign 1) or towards (sign -1) a plainer image."""
    factor = 1.0 + sign * (strength * _MAX_ENHANCEMENT)
    return _to_bytes(plain + factor * (tf.cast(image, tf.float32) - plain))


def _transform(
    image: tf.Tensor,
    scale: float | tf.Tensor = 1.0,
    x_by_y: float | tf.Tensor = 0.0,
    y_by_x: float | tf.Tensor = 0.0,
    shift_x: float | tf.Tensor = 0.0,
    shift_y: float | tf.Tensor = 0.0,
) -> tf.Tensor:
    """Moves pixels by an affine map about the centre.

    At (x, y), measured from the centre, the result shows the pixel of the image at
    (scale x + x_by_y y + shift_x, y_by_x x + scale y + shift_y).
    """
    size = tf.shape(image)[-3:-1]
    centre = (tf.cast(size, tf.float32) - 1.0) / 2.0
    centre_y, centre_x = centre[0], centre[1]
    offset_x = centre_x - scale * centre_x - x_by_y * centre_y + shift_x
    offset_y = centre_y - y_by_x * centre_x - scale * centre_y + shift_y
    numbers = (scale, x_by_y, offset_x, y_by_x, scale, offset_y, 0.0, 0.0)
    matrix = tf.stack([tf.cast(number, tf.float32) for number in numbers])
    result = tf.raw_ops.ImageProjectiveTransformV3(
        images=_frames(image),
        transforms=matrix[tf.newaxis],
        output_shape=size,
        fill_value=_FILL,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(tf.reshape(result, tf.shape(image)), image.shape)

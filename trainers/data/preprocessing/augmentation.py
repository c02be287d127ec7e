"""Changes images and clips: RandAugment, colours and erasing at random; their size.

Pure TensorFlow operations on uint8, with all randomness from a given seed. They run
on the host: the geometric ones have no kernel for accelerators.
"""

import math
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from trainers.configuration.data_options import FULL_MAGNITUDE

# Up to this many source pixels per pixel of the result, a cast costs less than it saves.
_LARGEST_RATIO_TO_CAST = 3


def randaugment(image: tf.Tensor, seed: tf.Tensor, layers: int, magnitude: float) -> tf.Tensor:
    """Applies `layers` operations, each drawn from all with equal chance.

    The image is uint8 (height, width, channels), or a clip (frames, height, width, channels), whose
    frames all get the same operations, in the same direction. `seed` is a stateless seed, integer
    (2,), and `magnitude` the common strength, 0 to 30.

    Reference:
        Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a
        Reduced Search Space", NeurIPS 2020.
    """
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


#: From an image or clip, a strength of 0 to 1 and a direction, -1 or 1 (for those that have one).
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

# The ranges of color_jitter, of the published video recipes.
_MAX_BRIGHTNESS = 32.0 / 255.0  # of the range of a pixel
_MAX_SATURATION = 0.4
_MAX_CONTRAST = 0.4
_MAX_HUE = 0.2  # of the colour circle

# The ranges of random_erasing, of its paper.
_ERASED_AREA = (0.02, 1 / 3)
_LARGEST_ERASED_LOG_RATIO = math.log(1 / 0.3)
_ERASED_PIXELS_STREAM = 1


def identity(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    del strength, sign
    return tf.identity(image)


def autocontrast(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the full range."""
    del strength, sign
    pixels = tf.cast(image, tf.float32)
    low = tf.reduce_min(pixels, axis=_positions(image))
    high = tf.reduce_max(pixels, axis=_positions(image))
    stretched = (pixels - low) * (255.0 / tf.maximum(high - low, 1.0))
    return to_bytes(tf.where(high > low, stretched, pixels))


def equalize(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Flattens the histogram of each channel."""
    del strength, sign
    # Channel c uses the table entries 256 c ... 256 c + 255.
    channels = image.shape[-1]
    length = 256 * channels
    codes = tf.cast(image, tf.int32) + tf.constant([*range(0, length, 256)])
    counts = tf.math.bincount(tf.reshape(codes, [-1]), minlength=length, maxlength=length)
    counts = tf.reshape(counts, (channels, 256))
    brightest = tf.reduce_max(image, axis=_positions(image))
    last_count = tf.gather(counts, tf.cast(brightest, tf.int32), batch_dims=1)
    step = (tf.reduce_sum(counts, axis=1) - last_count) // 255
    step = step[:, tf.newaxis]  # (channels, 1)
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
    return _enhance(image, _grey(image), strength, sign)


def contrast(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves away from, or towards, the mean grey."""
    return _enhance(image, tf.reduce_mean(_grey(image)), strength, sign)


def brightness(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves away from, or towards, black."""
    return _enhance(image, tf.constant(0.0), strength, sign)


def sharpness(image: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves away from, or towards, the smoothed image; the border stays."""
    frames = tf.cast(_frames(image), tf.float32)
    kernel = tf.constant(_SMOOTHING)[:, :, tf.newaxis, tf.newaxis] / 13.0
    kernel = tf.tile(kernel, (1, 1, image.shape[-1], 1))
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


def color_jitter(clip: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Changes brightness, saturation, contrast and hue of a share of the clips, in this order.

    All are drawn uniformly. Contrast is measured from the mean of each channel over the whole clip,
    so that equal pixels of two frames stay equal. Pixels are kept in range after each step and
    rounded once, at the end.
    """
    draws = tf.random.stateless_uniform((5,), seed, alg="philox")
    changes = 2.0 * draws[1:] - 1.0
    return tf.cond(
        draws[0] < probability, lambda: _jittered(clip, changes), lambda: tf.identity(clip)
    )


def color_drop(clip: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Turns a share of the clips to grey."""
    draw = tf.random.stateless_uniform((), seed, alg="philox")
    return tf.cond(draw < probability, lambda: _without_color(clip), lambda: tf.identity(clip))


def random_erasing(image: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Fills a rectangle of a share of the images or clips with random pixels.

    The area of the rectangle, 2 to 33 per cent of the image, is drawn uniformly, the logarithm of
    height / width between those of 0.3 and 1 / 0.3; sides are cut to the image, in which all of the
    rectangle lies. All frames of a clip show the same rectangle and the same pixels.

    The pixels are random, not grey: grey is what RandAugment's geometric operations fill with, and
    a model learns what an evenly coloured rectangle means.

    Reference:
        Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, with random values.
    """
    draws = tf.random.stateless_uniform((5,), seed, alg="philox")
    return tf.cond(
        draws[0] < probability, lambda: _erased(image, seed, draws[1:]), lambda: tf.identity(image)
    )


def _erased(image: tf.Tensor, seed: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Erases the rectangle that four draws, each 0 to 1, say."""
    height, width, channels = image.shape[-3:]
    area, ratio, down, across = tf.unstack(draws)
    smallest, largest = _ERASED_AREA
    area = (smallest + (largest - smallest) * area) * height * width
    root = tf.exp((ratio - 0.5) * _LARGEST_ERASED_LOG_RATIO)  # of height / width
    size = tf.stack([tf.sqrt(area) * root, tf.sqrt(area) / root])
    whole = tf.constant([height, width])
    size = tf.clip_by_value(tf.cast(tf.round(size), tf.int32), 1, whole)
    free = tf.cast(whole - size + 1, tf.float32)
    begin = tf.cast(tf.stack([down, across]) * free, tf.int32)
    (top, left), (bottom, right) = tf.unstack(begin), tf.unstack(begin + size)
    rows, columns = tf.range(height)[:, tf.newaxis], tf.range(width)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)  # (H, W)
    # Four bytes of each number that is drawn.
    count = -(-height * width * channels // 4)
    stream = tf.random.experimental.stateless_fold_in(seed, _ERASED_PIXELS_STREAM)
    numbers = tf.random.stateless_uniform(
        (count,), stream, minval=None, maxval=None, dtype=tf.int32, alg="philox"
    )
    values = tf.reshape(tf.bitcast(numbers, tf.uint8), [-1])[: height * width * channels]
    pixels = tf.reshape(values, (height, width, channels))
    return tf.ensure_shape(tf.where(inside[..., tf.newaxis], pixels, image), image.shape)


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Returns the brightness of each pixel of RGB or grey, float32 with one channel."""
    if image.shape[-1] == 1:
        return tf.cast(image, tf.float32)
    weighted = tf.cast(image, tf.float32) * tf.constant(_LUMA)
    return tf.reduce_sum(weighted, axis=-1, keepdims=True)


def _positions(image: tf.Tensor) -> tuple[int, ...]:
    """Returns all axes except that of the channels."""
    return tuple(range(len(image.shape) - 1))


def _frames(image: tf.Tensor) -> tf.Tensor:
    """Returns (frames, height, width, channels) of a clip, or of an image as its only frame."""
    return image[tf.newaxis] if len(image.shape) == 3 else image


def to_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns an image or clip, uint8, with 3 channels, or with 1: the brightness of RGB."""
    if image.shape[-1] == channels:
        return image
    return tf.cast(tf.round(_grey(image)), tf.uint8)


def to_bytes(pixels: tf.Tensor) -> tf.Tensor:
    """Rounds float32 pixels to uint8."""
    # tf.clip_by_value is two operations.
    pixels = tf.raw_ops.ClipByValue(t=tf.round(pixels), clip_value_min=0.0, clip_value_max=255.0)
    return tf.cast(pixels, tf.uint8)


def resize(pixels: tf.Tensor, size: tuple[int, int] | tf.Tensor, interpolation: str) -> tf.Tensor:
    """Returns images, uint8 ([frames,] height, width, channels), of another size, float32.

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


def _enhance(image: tf.Tensor, plain: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Moves each pixel away from (sign 1) or towards (sign -1) a plainer image."""
    factor = 1.0 + sign * (strength * _MAX_ENHANCEMENT)
    return to_bytes(plain + factor * (tf.cast(image, tf.float32) - plain))


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


def _jittered(clip: tf.Tensor, changes: tf.Tensor) -> tf.Tensor:
    """Applies four changes, each -1 to 1."""
    by_brightness, by_saturation, by_contrast, by_hue = tf.unstack(changes)
    pixels = tf.cast(clip, tf.float32) / 255.0
    pixels = _in_range(pixels + _MAX_BRIGHTNESS * by_brightness)
    pixels = _in_range(tf.image.adjust_saturation(pixels, 1.0 + _MAX_SATURATION * by_saturation))
    mean = tf.reduce_mean(pixels, axis=(0, 1, 2))
    pixels = _in_range(mean + (1.0 + _MAX_CONTRAST * by_contrast) * (pixels - mean))
    pixels = _in_range(tf.image.adjust_hue(pixels, _MAX_HUE * by_hue))
    return tf.cast(tf.round(255.0 * pixels), tf.uint8)


def _without_color(clip: tf.Tensor) -> tf.Tensor:
    return tf.broadcast_to(to_channels(clip, 1), tf.shape(clip))


def _in_range(pixels: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(pixels, 0.0, 1.0)

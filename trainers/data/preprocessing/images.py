"""Makes images of fixed size from examples: crops, flips and augmentation, all from one seed.

Images stay uint8: they cross to the device as bytes and are normalized there.
"""

from functools import partial

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.preprocessing.augmentation import randaugment
from trainers.data.preprocessing.augmentation import random_erasing
from trainers.data.preprocessing.augmentation import resize
from trainers.data.preprocessing.augmentation import to_bytes
from trainers.data.preprocessing.augmentation import to_channels
from trainers.data.preprocessing.decoding import ChooseWindow
from trainers.data.preprocessing.decoding import Example
from trainers.data.preprocessing.decoding import decode_image
from trainers.data.preprocessing.decoding import decode_window

# Numbers folded into the seed of an example, so that no two draws share a stream.
_INCEPTION_STREAM = 1
_RANDAUGMENT_STREAM = 2
_ERASING_STREAM = 3


def train_example(example: Example, seed: tf.Tensor, config: PreprocessingConfig) -> tf.Tensor:
    """Cuts, resizes, flips and augments one training example.

    `seed` is a stateless seed, int32 or int64 (2,). The result is uint8 (height, width,
    channels) of `config.image_size` and `config.channels`.
    """
    # One draw for all: each random operation costs as much as moving a small image.
    shift_y, shift_x, flip = tf.unstack(tf.random.stateless_uniform((3,), seed, alg="philox"))
    if config.crop == "pad":
        image = _resize(_decoded(example, config), config)
        image = _shift_and_flip(image, shift_y, shift_x, flip, config)
    else:
        image = _resize(_cropped(example, seed, shift_y, shift_x, config), config)
        if config.flip:
            image = tf.cond(flip < 0.5, lambda: tf.reverse(image, [1]), lambda: tf.identity(image))
    image = randaugment(
        image,
        tf.random.experimental.stateless_fold_in(seed, _RANDAUGMENT_STREAM),
        config.randaugment_layers,
        config.randaugment_magnitude,
    )
    image = tf.ensure_shape(image, (*config.image_size, config.channels))
    if config.random_erasing > 0:
        stream = tf.random.experimental.stateless_fold_in(seed, _ERASING_STREAM)
        image = random_erasing(image, stream, config.random_erasing)
    return image


def evaluation_example(example: Example, config: PreprocessingConfig) -> tf.Tensor:
    """Cuts the centre of one evaluation example, and resizes it; see `train_example`."""
    if config.eval_crop_fraction == 1.0:
        return _resize(_decoded(example, config), config)
    return _resize(_decoded(example, config, partial(_centre_window, config=config)), config)


def _cropped(
    example: Example,
    seed: tf.Tensor,
    shift_y: tf.Tensor,
    shift_x: tf.Tensor,
    config: PreprocessingConfig,
) -> tf.Tensor:
    if config.crop == "none":
        return _decoded(example, config)

    def choose(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        if config.crop == "inception":
            return inception_window(height, width, seed, config)
        size = _fitted_size(height, width, config, config.small_crop_fraction)
        free = tf.cast(tf.stack([height, width]) - size + 1, tf.float32)
        begin = tf.cast(tf.stack([shift_y, shift_x]) * free, tf.int32)
        return tf.concat([begin, size], axis=0)

    return _decoded(example, config, choose)


def _decoded(
    example: Example, config: PreprocessingConfig, choose_window: ChooseWindow | None = None
) -> tf.Tensor:
    """Returns a window of an image, or all of it, in the scale and channels of the options."""
    smallest = config.image_size if config.scaled_decoding else None
    if choose_window is None:
        image = decode_image(example, config.exif_orientation, smallest)
    else:
        image = decode_window(example, choose_window, config.exif_orientation, smallest)
    return to_channels(image, config.channels)


def inception_window(
    height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor, config: PreprocessingConfig
) -> tf.Tensor:
    """Returns the window of `crop="inception"`, int32 (4,): top, left, height, width."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        image_size=tf.stack([height, width, 3]),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=tf.random.experimental.stateless_fold_in(seed, _INCEPTION_STREAM),
        min_object_covered=0.0,
        aspect_ratio_range=config.crop_aspect_ratio,
        area_range=config.crop_area,
        max_attempts=config.crop_attempts,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], axis=0)
    # When all attempts fail, the operation returns the whole image, which a resize would
    # distort: take the centre instead.
    failed = tf.logical_and(tf.equal(size[0], height), tf.equal(size[1], width))
    return tf.where(failed, _centre_window(height, width, config), window)


def _centre_window(height: tf.Tensor, width: tf.Tensor, config: PreprocessingConfig) -> tf.Tensor:
    size = _fitted_size(height, width, config, config.eval_crop_fraction)
    begin = (tf.stack([height, width]) - size + 1) // 2
    return tf.concat([begin, size], axis=0)


def _fitted_size(
    height: tf.Tensor, width: tf.Tensor, config: PreprocessingConfig, fraction: float
) -> tf.Tensor:
    """Returns int32 (2,), a share of the largest window with the shape of the result."""
    target_height, target_width = config.image_size
    # In float64 the products are exact: a square keeps exactly fraction * side.
    fit = tf.cast(tf.minimum(height * target_width, width * target_height), tf.float64)
    sides = tf.stack([fit / target_width, fit / target_height])
    return tf.maximum(tf.cast(sides * fraction, tf.int32), 1)


def _resize(image: tf.Tensor, config: PreprocessingConfig) -> tf.Tensor:
    if image.shape == (*config.image_size, config.channels):
        return image
    return to_bytes(resize(image, config.image_size, config.interpolation))


def _shift_and_flip(
    image: tf.Tensor,
    shift_y: tf.Tensor,
    shift_x: tf.Tensor,
    flip: tf.Tensor,
    config: PreprocessingConfig,
) -> tf.Tensor:
    """Pads by reflection, cuts at random and flips."""
    # Looking up columns, or padding with `tf.pad`, takes twice the time of this: rows are
    # contiguous and can be looked up, columns come from the mirrored image.
    width, padding = config.image_size[1], config.padding
    shifts = 2 * padding + 1
    rows = tf.constant(_reflected_positions(config.image_size[0], padding))
    image = tf.gather(image, tf.gather(rows, tf.cast(shift_y * shifts, tf.int32)))
    mirrored = tf.reverse(image, [1])
    if config.flip:
        image, mirrored = tf.cond(flip < 0.5, lambda: (mirrored, image), lambda: (image, mirrored))
    left, right = mirrored[:, width - 1 - padding : -1], mirrored[:, 1 : padding + 1]
    padded = tf.concat([left, image, right], axis=1)
    begin = tf.cast(shift_x * shifts, tf.int32)
    return padded[:, begin : begin + width]


def _reflected_positions(size: int, padding: int) -> NDArray[np.int32]:
    """Returns (2 padding + 1, size): for each shift, the positions that are shown."""
    positions = np.pad(np.arange(size, dtype=np.int32), padding, mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(positions, size)

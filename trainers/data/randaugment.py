"""RandAugment: a few random operations of one common strength on each image or clip.

Pure TensorFlow operations on uint8, with all randomness from a given seed. They run
on the host: the geometric ones have no kernel for accelerators.
"""

from functools import partial

import tensorflow as tf

from trainers.configuration.data_options import FULL_MAGNITUDE
from trainers.configuration.data_options import check_randaugment
from trainers.data.image_operations import OPERATIONS
from trainers.utils.errors import ConfigurationError


def randaugment(image: tf.Tensor, seed: tf.Tensor, layers: int, magnitude: float) -> tf.Tensor:
    """Apply `layers` operations, each drawn from all with equal chance.

    The frames of a clip all get the same operations, in the same direction.

    Args:
        image: uint8 (height, width, 3), or a clip (frames, height, width, 3).
        seed: stateless seed, integer (2,); the same seed gives the same bytes.
        layers: number of operations one after another, 0 or more.
        magnitude: common strength, 0 to 30. (Where a scale of 0 to 10 is used, as
            in `RandAugment(2, 10)` of some recipes, take three times its number.)

    Returns:
        uint8 of the same shape.

    Raises:
        ConfigurationError: if `layers` or `magnitude` is out of range.

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
        # A switch runs one branch only; selecting among results would run them all.
        image = tf.ensure_shape(tf.switch_case(choices[layer], branches), shape)
    return image


def apply_operation(
    name: str, image: tf.Tensor, magnitude: float, sign: float | tf.Tensor = 1.0
) -> tf.Tensor:
    """Apply one operation by its name.

    Args:
        name: a key of `OPERATIONS`.
        image: uint8 (height, width, 3), or a clip (frames, height, width, 3).
        magnitude: strength, 0 to 30.
        sign: -1 or 1, the direction of operations that have one.

    Returns:
        uint8 of the same shape.

    Raises:
        ConfigurationError: if the name is unknown or the magnitude out of range.
    """
    check_randaugment(1, magnitude)
    if name not in OPERATIONS:
        raise ConfigurationError(
            f"unknown operation: expected one of {', '.join(OPERATIONS)}, received {name!r}"
        )
    sign = tf.convert_to_tensor(sign, tf.float32)
    return OPERATIONS[name](image, magnitude / FULL_MAGNITUDE, sign)

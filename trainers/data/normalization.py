"""From the bytes of an image to the numbers a network reads, on the device.

Batches cross to the accelerator as uint8, a quarter of the traffic of float32, and
are normalised inside the compiled step.
"""

import tensorflow as tf

from trainers.errors import ConfigurationError

#: kind -> (mean, standard deviation) of each channel, in units of a byte.
_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (
        (0.485 * 255, 0.456 * 255, 0.406 * 255),
        (0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
    "unit": ((127.5,), (127.5,)),
    "zero_one": ((0.0,), (255.0,)),
}

NORMALIZATIONS = tuple(sorted(_STATISTICS))


def check_normalization(kind: str) -> None:
    """Refuse an unknown kind of normalisation before any work starts.

    Raises:
        ConfigurationError: if `kind` is not one of `NORMALIZATIONS`.
    """
    if kind not in _STATISTICS:
        raise ConfigurationError(
            f"data.normalization: expected one of {', '.join(NORMALIZATIONS)}, "
            f"received {kind!r}; correct the configuration"
        )


def normalize(images: tf.Tensor, kind: str) -> tf.Tensor:
    """Scale and shift images.

    Args:
        images: uint8 (..., 3), values 0 to 255.
        kind: "imagenet" (mean 0 and deviation 1 over ImageNet, each channel),
            "unit" (-1 to 1) or "zero_one" (0 to 1).

    Returns:
        float32 of the same shape.

    Raises:
        ConfigurationError: if `kind` is unknown.
    """
    check_normalization(kind)
    mean, deviation = _STATISTICS[kind]
    centred = tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)
    return centred / tf.constant(deviation, tf.float32)

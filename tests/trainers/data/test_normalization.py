import numpy as np
import pytest
import tensorflow as tf

from trainers.data.normalization import NORMALIZATIONS
from trainers.data.normalization import normalize
from trainers.errors import ConfigurationError


@pytest.mark.parametrize(
    ("kind", "black", "white"),
    [
        ("unit", [-1.0] * 3, [1.0] * 3),
        ("zero_one", [0.0] * 3, [1.0] * 3),
        ("imagenet", [-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64]),
    ],
)
def test_ends_of_the_range(kind: str, black: list[float], white: list[float]) -> None:
    images = tf.constant([[[0, 0, 0], [255, 255, 255]]], tf.uint8)
    result = normalize(images, kind)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result[0], [black, white], rtol=1e-5)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_compiles_for_the_device(kind: str) -> None:
    images = tf.zeros((2, 4, 4, 3), tf.uint8)
    compiled = tf.function(lambda x: normalize(x, kind), jit_compile=True)
    np.testing.assert_allclose(compiled(images), normalize(images, kind), rtol=1e-6)


def test_unknown_kind() -> None:
    with pytest.raises(ConfigurationError, match=r"imagenet, unit, zero_one.*'other'"):
        normalize(tf.zeros((1, 1, 3), tf.uint8), "other")

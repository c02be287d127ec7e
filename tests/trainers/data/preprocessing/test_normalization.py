import numpy as np
import pytest

from tests.helpers.backends import compiled
from tests.helpers.backends import dtype_name
from trainers.configuration.data_options import NORMALIZATIONS
from trainers.configuration.data_options import check_normalization
from trainers.data.preprocessing.normalization import normalize
from trainers.utils.errors import ConfigurationError

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize(
    ("kind", "black", "white"),
    [
        ("unit", [-1.0] * 3, [1.0] * 3),
        ("zero_one", [0.0] * 3, [1.0] * 3),
        ("imagenet", [-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64]),
    ],
)
def test_ends_of_the_range(kind: str, black: list[float], white: list[float]) -> None:
    images = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    result = normalize(images, kind)
    assert dtype_name(result) == "float32"
    np.testing.assert_allclose(result[0], [black, white], rtol=1e-5)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_compiles_for_the_device(kind: str) -> None:
    images = np.arange(2 * 3 * 4 * 5 * 3).reshape(2, 3, 4, 5, 3).astype(np.uint8)
    result = compiled(lambda x: normalize(x, kind))(images)
    np.testing.assert_allclose(result, normalize(images, kind), rtol=1e-5, atol=1e-5)


def test_unknown_kind() -> None:
    with pytest.raises(ConfigurationError, match=r"clip, imagenet, unit, zero_one.*'other'"):
        normalize(np.zeros((1, 1, 3), np.uint8), "other")


def _clips(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 4, 3, 4, 5)])
def test_each_clip_by_its_own_mean_and_deviation(shape: tuple[int, ...]) -> None:
    clips = _clips(*shape)
    clips[0] //= 5
    result = normalize(clips, "clip")
    assert dtype_name(result) == "float32"
    axes = (-1, -2, -3, -4)
    mean, deviation = (f(clips, axis=axes, keepdims=True) for f in (np.mean, np.std))
    np.testing.assert_allclose(result, (clips - mean) / deviation, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_large_clips_keep_their_digits(jit_compile: bool) -> None:
    # Bytes of a long clip add up to more than float32 counts in ones.
    clips = _clips(1, 16, 128, 128) // 4 + 180
    result = compiled(lambda x: normalize(x, "clip"), jit_compile)(clips)
    expected = (clips - clips.mean()) / clips.std()
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_clips_without_contrast_stay_finite(jit_compile: bool) -> None:
    clips = np.full((2, 4, 32, 32, 3), 31, np.uint8)
    clips[1, 0, 0, 0, 0] = 32
    result = np.asarray(compiled(lambda x: normalize(x, "clip"), jit_compile)(clips))
    np.testing.assert_allclose(result[0], 0.0, atol=1e-4)
    # A deviation below one byte is not blown up.
    np.testing.assert_allclose(result[1].max(), 1.0, atol=1e-3)


def test_clip_is_not_for_images() -> None:
    message = r"data.normalization must be .* for images. Received: 'clip'"
    with pytest.raises(ConfigurationError, match=message):
        normalize(np.zeros((2, 8, 8, 3), np.uint8), "clip")
    with pytest.raises(ConfigurationError, match=message):
        check_normalization("clip", clips=False)
    check_normalization("clip", clips=True)
    check_normalization("clip")

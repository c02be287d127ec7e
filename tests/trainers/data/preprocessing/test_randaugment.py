import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.fake_source import photograph
from trainers.configuration.data_options import FULL_MAGNITUDE
from trainers.data.preprocessing.augmentation import OPERATIONS
from trainers.data.preprocessing.augmentation import randaugment

pytestmark = pytest.mark.every_backend

ENHANCEMENTS = ("color", "contrast", "brightness", "sharpness")
MOVEMENTS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
DIRECTED = (*ENHANCEMENTS, *MOVEMENTS)


def apply_operation(
    name: str, image: tf.Tensor | np.ndarray, magnitude: float, sign: float = 1.0
) -> tf.Tensor:
    return OPERATIONS[name](image, magnitude / FULL_MAGNITUDE, tf.constant(sign))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_operation_keeps_shape_and_type(name: str, sign: float) -> None:
    image = photograph()
    result = apply_operation(name, tf.constant(image), 20.0, sign)
    assert result.dtype == tf.uint8
    assert result.shape == image.shape
    assert np.array_equal(result, image) == (name == "identity")


@pytest.mark.parametrize("name", [*DIRECTED, "posterize", "solarize"])
def test_magnitude_zero_changes_nothing(name: str) -> None:
    image = photograph()
    np.testing.assert_array_equal(apply_operation(name, image, 0.0), image)


@pytest.mark.parametrize("name", DIRECTED)
def test_sign_gives_the_direction(name: str) -> None:
    image = tf.constant(photograph())
    ahead, back = (apply_operation(name, image, 15.0, sign) for sign in (1.0, -1.0))
    assert not np.array_equal(ahead, back)


@pytest.mark.parametrize("name", OPERATIONS)
def test_flat_image_stays_finite(name: str) -> None:
    image = tf.fill((8, 8, 3), tf.constant(7, tf.uint8))
    assert apply_operation(name, image, 30.0).shape == (8, 8, 3)


def test_autocontrast_uses_the_full_range() -> None:
    result = apply_operation("autocontrast", photograph(), 30.0).numpy()
    assert result.min(axis=(0, 1)).tolist() == [0, 0, 0]
    assert result.max(axis=(0, 1)).tolist() == [255, 255, 255]


def test_equalize_flattens_the_histogram() -> None:
    image = (np.arange(64 * 64) ** 2 / (64 * 64) ** 2 * 255).astype(np.uint8)
    image = np.repeat(image.reshape(64, 64, 1), 3, axis=2)
    result = apply_operation("equalize", image, 30.0).numpy()
    counts, _ = np.histogram(result[..., 0], bins=4, range=(0, 256))
    before, _ = np.histogram(image[..., 0], bins=4, range=(0, 256))
    assert before.max() > 1.9 * 1024
    assert counts.max() < 1.2 * 1024


def test_values_of_point_operations() -> None:
    image = np.full((4, 4, 3), 200, np.uint8)
    image[0] = 100
    inverted = apply_operation("solarize", image, 15.0).numpy()
    assert inverted[0, 0, 0] == 100 and inverted[1, 0, 0] == 55
    coarse = apply_operation("posterize", image, 30.0).numpy()
    assert coarse[0, 0, 0] == 96 and coarse[1, 0, 0] == 192
    dark = apply_operation("brightness", image, 30.0, -1.0).numpy()
    assert dark[0, 0, 0] == 10 and dark[1, 0, 0] == 20


def test_translation_fills_with_grey() -> None:
    image = np.zeros((12, 12, 3), np.uint8)
    moved = apply_operation("translate_x", image, 30.0).numpy()
    filled = (moved == 128).all(axis=(0, 2))
    assert filled.sum() == round(12 * 150 / 331)
    assert (moved[:, ~filled] == 0).all()


def test_rotation_keeps_the_centre() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 4] = 255
    turned = apply_operation("rotate", image, 30.0).numpy()
    assert (turned[4, 4] >= 254).all()


def test_same_seed_same_bytes_and_seeds_differ() -> None:
    image = tf.constant(photograph())
    augment = tf.function(lambda seed: randaugment(image, seed, 2, 20.0))
    results = [augment(tf.constant([0, seed])).numpy() for seed in range(12)]
    np.testing.assert_array_equal(augment(tf.constant([0, 3])), results[3])
    assert len({result.tobytes() for result in results}) > 8


def test_no_layers_is_the_image() -> None:
    image = tf.constant(photograph())
    assert randaugment(image, tf.constant([0, 0]), 0, 10.0) is image


def _clip() -> np.ndarray:
    """Return frames of different brightness, which measure differently one by one."""
    picture = photograph(20, 24)
    return np.stack([picture // 4, picture // 2, 255 - picture, picture])


MEASURED = ("autocontrast", "equalize", "contrast")


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in MEASURED])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_every_frame_of_a_clip_gets_the_same_operation(name: str, sign: float) -> None:
    clip = _clip()
    result = apply_operation(name, tf.constant(clip), 20.0, sign)
    expected = [apply_operation(name, tf.constant(frame), 20.0, sign) for frame in clip]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_clip_is_measured_as_one(name: str, sign: float) -> None:
    clip = _clip()
    tall = tf.constant(clip.reshape(-1, 24, 3))  # all frames in one image
    result = apply_operation(name, tf.constant(clip), 20.0, sign).numpy()
    expected = apply_operation(name, tall, 20.0, sign).numpy().reshape(clip.shape)
    np.testing.assert_array_equal(result, expected)
    frame = apply_operation(name, tf.constant(clip[0]), 20.0, sign)
    assert not np.array_equal(result[0], frame)


def test_a_still_clip_is_augmented_like_its_frame() -> None:
    image = photograph()
    clip = tf.constant(np.stack([image] * 3))
    augment = tf.function(lambda frames, seed: randaugment(frames, seed, 2, 20.0))
    for number in range(12):
        seed = tf.constant([1, number])
        result = augment(clip, seed).numpy()
        np.testing.assert_array_equal(result, [augment(tf.constant(image), seed)] * 3)

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.fake_source import photograph
from trainers.configuration.data_options import CROPS
from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.preprocessing.images import evaluation_example
from trainers.data.preprocessing.images import train_example
from trainers.utils.errors import ConfigurationError


def _trainer(
    example: dict[str, tf.Tensor], config: PreprocessingConfig
) -> Callable[[int], tf.Tensor]:
    function = tf.function(lambda seed: train_example(example, seed, config))
    return lambda seed: function(tf.constant([7, seed], tf.int64))


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_training_images_have_a_fixed_size(crop: str, interpolation: str) -> None:
    config = PreprocessingConfig(
        (24, 32), crop=crop, interpolation=interpolation, randaugment_layers=1
    )
    train = _trainer({"image": tf.constant(photograph(50, 61))}, config)
    images = [train(seed).numpy() for seed in range(6)]
    assert {image.shape for image in images} == {(24, 32, 3)}
    assert {image.dtype for image in images} == {np.dtype(np.uint8)}
    assert len({image.tobytes() for image in images}) > 1
    np.testing.assert_array_equal(train(2), images[2])


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(
    "encode", [tf.io.encode_jpeg, pytest.param(tf.io.encode_png, marks=pytest.mark.slow)]
)
def test_encoded_and_raw_images_agree(crop: str, encode: Callable[[tf.Tensor], tf.Tensor]) -> None:
    encoded = encode(photograph(48, 64))
    raw = {"image": tf.io.decode_image(encoded)}
    file = {"encoded": encoded, "identity": tf.constant("x")}
    config = PreprocessingConfig((32, 32), crop=crop)
    for seed in range(4):
        expected = _trainer(raw, config)(seed).numpy().astype(int)
        received = _trainer(file, config)(seed).numpy().astype(int)
        # The chroma of a JPEG is interpolated beyond the border of the window.
        assert np.abs(received - expected).mean() < 0.5
    expected = evaluation_example(raw, config).numpy().astype(int)
    received = evaluation_example(file, config).numpy().astype(int)
    assert np.abs(received - expected).mean() < 0.5


def test_pad_crop_is_a_shift_with_reflection_and_flip() -> None:
    image = photograph(16, 20)
    config = PreprocessingConfig((16, 20), crop="pad", padding=3)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    possible = {}
    for dy in range(7):
        for dx in range(7):
            window = padded[dy : dy + 16, dx : dx + 20]
            possible[window.tobytes()] = (dy, dx, False)
            possible[window[:, ::-1].tobytes()] = (dy, dx, True)
    train = _trainer({"image": tf.constant(image)}, config)
    seen = [possible[train(seed).numpy().tobytes()] for seed in range(300)]
    assert {dy for dy, _, _ in seen} == {dx for _, dx, _ in seen} == set(range(7))
    assert 100 < sum(flipped for _, _, flipped in seen) < 200


@pytest.mark.parametrize("crop", CROPS)
def test_flip_can_be_off(crop: str) -> None:
    # Brighter to the right in every window, unless it is flipped.
    image = np.tile(np.arange(0, 240, 6, dtype=np.uint8)[:, None], (40, 1, 3))
    for flip in (False, True):
        config = PreprocessingConfig((20, 20), crop=crop, flip=flip, padding=0)
        train = _trainer({"image": tf.constant(image)}, config)
        images = [train(seed).numpy().astype(int) for seed in range(40)]
        flipped = [image[:, 0].mean() > image[:, -1].mean() for image in images]
        assert any(flipped) == flip
        assert not all(flipped)


def test_nothing_to_do_is_the_image() -> None:
    image = photograph(16, 20)
    config = PreprocessingConfig((16, 20), crop="none", flip=False, eval_crop_fraction=1.0)
    example = {"image": tf.constant(image)}
    np.testing.assert_array_equal(_trainer(example, config)(0), image)
    np.testing.assert_array_equal(evaluation_example(example, config), image)


def test_evaluation_shows_the_centre() -> None:
    image = photograph(64, 96)
    config = PreprocessingConfig((56, 56), eval_crop_fraction=0.875)
    result = evaluation_example({"image": tf.constant(image)}, config)
    np.testing.assert_array_equal(result, image[4:60, 20:76])


def test_evaluation_window_has_the_shape_of_the_result() -> None:
    image = photograph(64, 64)
    config = PreprocessingConfig((28, 56), eval_crop_fraction=0.875)
    result = evaluation_example({"image": tf.constant(image)}, config)
    np.testing.assert_array_equal(result, image[18:46, 4:60])


def test_resize_small_crop_is_a_window_of_the_fraction() -> None:
    image = photograph(32, 40)
    config = PreprocessingConfig(
        (28, 28), crop="resize_small_crop", small_crop_fraction=0.875, flip=False
    )
    windows = {image[y : y + 28, x : x + 28].tobytes(): (y, x) for y in range(5) for x in range(13)}
    train = _trainer({"image": tf.constant(image)}, config)
    seen = {windows[train(seed).numpy().tobytes()] for seed in range(300)}
    assert {y for y, _ in seen} == set(range(5))
    assert {x for _, x in seen} == set(range(13))


def test_inception_crop_falls_back_to_the_centre() -> None:
    # No window of a third of the aspect ratio covers 90 % of a wide image.
    image = photograph(32, 64)
    config = PreprocessingConfig((28, 28), crop_area=(0.9, 1.0), flip=False)
    result = _trainer({"image": tf.constant(image)}, config)(0)
    np.testing.assert_array_equal(result, image[2:30, 18:46])


def test_inception_area_is_in_range() -> None:
    # Each pixel spells its column: the width of a window can be read off.
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0] = np.arange(100)[None, :]
    image[..., 1] = np.arange(100)[:, None]
    config = PreprocessingConfig((100, 100), interpolation="bilinear", flip=False)
    train = _trainer({"image": tf.constant(image)}, config)
    areas = []
    for seed in range(200):
        window = train(seed).numpy().astype(int)
        width, height = np.ptp(window[..., 0]) + 1, np.ptp(window[..., 1]) + 1
        areas.append(width * height / 1e4)
    assert 0.06 < min(areas) < 0.2 and max(areas) > 0.8


def test_lists_of_a_configuration_file_are_accepted() -> None:
    config = PreprocessingConfig([8, 8], crop_area=[0.5, 1.0])  # type: ignore[arg-type]
    assert config == PreprocessingConfig((8, 8), crop_area=(0.5, 1.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 224},
        {"image_size": (0, 8)},
        {"crop": "zoom"},
        {"interpolation": "lanczos"},
        {"crop_area": (0.0, 1.0)},
        {"crop_area": (0.9, 0.1)},
        {"crop_aspect_ratio": (2.0, 1.0)},
        {"crop_attempts": 0},
        {"small_crop_fraction": 0.0},
        {"eval_crop_fraction": 1.5},
        {"padding": 8},
        {"randaugment_layers": -1},
        {"randaugment_magnitude": 40},
        {"random_erasing": -0.1},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    (name,) = wrong
    arguments = {"image_size": (8, 8), **wrong}
    with pytest.raises(ConfigurationError, match=f"{name} must be .* Received: "):
        PreprocessingConfig(**arguments)  # type: ignore[arg-type]

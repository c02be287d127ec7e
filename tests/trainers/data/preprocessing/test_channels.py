"""Grey images and videos: what is read, augmented and normalized."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.fake_source import photograph
from trainers.configuration.data_options import CROPS
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.augmentation import OPERATIONS
from trainers.data.preprocessing.augmentation import to_channels
from trainers.data.preprocessing.images import evaluation_example
from trainers.data.preprocessing.images import train_example
from trainers.data.preprocessing.normalization import normalize
from trainers.data.preprocessing.videos import evaluation_views
from trainers.data.preprocessing.videos import train_clip
from trainers.utils.errors import ConfigurationError

pytestmark = pytest.mark.every_backend

SEED = (3, 5)


def _grey() -> np.ndarray:
    return to_channels(tf.constant(photograph()), 1).numpy()


def _files() -> dict[str, bytes]:
    pixels = tf.constant(photograph())
    return {
        "colour JPEG": tf.io.encode_jpeg(pixels).numpy(),
        "colour PNG": tf.io.encode_png(pixels).numpy(),
        "grey JPEG": tf.io.encode_jpeg(_grey()).numpy(),
        "grey PNG": tf.io.encode_png(_grey()).numpy(),
    }


def test_grey_is_the_brightness_and_grey_stays_itself() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(to_channels(tf.repeat(levels, 3, axis=-1), 1), levels)
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert to_channels(tf.constant(colours), 1).numpy().ravel().tolist() == [76, 150, 29]
    image = tf.constant(colours)
    assert to_channels(image, 3) is image


@pytest.mark.parametrize("fraction", [0.875, 1.0])
@pytest.mark.parametrize("kind", ["colour JPEG", "colour PNG", "grey JPEG", "grey PNG"])
def test_files_are_read_as_grey(kind: str, fraction: float) -> None:
    options: dict[str, Any] = {"image_size": (12, 10), "eval_crop_fraction": fraction}
    example = {"encoded": tf.constant(_files()[kind])}
    grey = evaluation_example(example, PreprocessingConfig(**options, channels=1)).numpy()
    colour = evaluation_example(example, PreprocessingConfig(**options)).numpy()
    assert grey.shape == (12, 10, 1) and grey.dtype == np.uint8 and np.ptp(grey) > 0
    # Turned to grey before the resize, which rounds: a level or two apart for colours.
    tolerance = 2 if "colour" in kind else 0
    brightness = to_channels(tf.constant(colour), 1).numpy().astype(int)
    assert np.abs(grey.astype(int) - brightness).max() <= tolerance


@pytest.mark.parametrize("crop", CROPS)
def test_training_sees_of_a_grey_image_what_it_sees_of_its_colours(crop: str) -> None:
    example = {"encoded": tf.constant(_files()["grey PNG"])}
    options: dict[str, Any] = {"image_size": (12, 10), "crop": crop, "randaugment_layers": 2}
    grey, colour = (
        train_example(example, SEED, PreprocessingConfig(**options, channels=channels)).numpy()
        for channels in (1, 3)
    )
    assert grey.shape == (12, 10, 1)
    np.testing.assert_array_equal(np.repeat(grey, 3, axis=-1), colour)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_grey(name: str, sign: float) -> None:
    grey = tf.constant(_grey())
    colour = tf.repeat(grey, 3, axis=-1)
    results = [OPERATIONS[name](each, 0.7, tf.constant(sign)) for each in (grey, colour)]
    assert results[0].shape == grey.shape
    np.testing.assert_array_equal(np.repeat(results[0], 3, axis=-1), results[1])


def test_clips_are_read_as_grey() -> None:
    video = np.stack([photograph()] * 6)
    options: dict[str, Any] = {"min_resize": 16, "temporal_views": 2, "randaugment_layers": 1}
    config = VideoPreprocessingConfig((16, 16), 4, stride=1, channels=1, **options)
    example = {"video": tf.constant(video)}
    clip = train_clip(example, SEED, config).numpy()
    erased = train_clip(example, SEED, dataclasses.replace(config, random_erasing=1.0)).numpy()
    assert clip.shape == erased.shape == (4, 16, 16, 1) and not np.array_equal(clip, erased)
    views = evaluation_views(example, config).numpy()
    assert views.shape == (6, 4, 16, 16, 1) and np.ptp(views) > 0
    grey = {"video": to_channels(example["video"], 1)}
    np.testing.assert_array_equal(evaluation_views(grey, config), views)


@pytest.mark.parametrize("kind", ["unit", "zero_one", "imagenet"])
def test_normalization_of_grey(kind: str) -> None:
    grey = _grey()[None]
    received = np.asarray(normalize(tf.constant(grey).numpy(), kind))
    colour = np.asarray(normalize(np.repeat(grey, 3, axis=-1), kind))
    assert received.shape == grey.shape and received.dtype == np.float32
    if kind != "imagenet":
        np.testing.assert_array_equal(received[..., 0], colour[..., 0])
        return
    expected = (grey / 255 - (0.485 + 0.456 + 0.406) / 3) / ((0.229 + 0.224 + 0.225) / 3)
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_channels_are_refused(channels: int) -> None:
    message = rf"model.channels must be 1 or 3 .* Received: {channels}. .*model.fit"
    for make in (PreprocessingConfig, lambda *a, **k: VideoPreprocessingConfig(*a, 4, **k)):
        with pytest.raises(ConfigurationError, match=message):
            make((8, 8), channels=channels)


@pytest.mark.parametrize("name", ["color_jitter", "color_drop"])
def test_grey_videos_have_no_colours_to_change(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"video.{name} must be 0 with model.channels=1"):
        VideoPreprocessingConfig((8, 8), 4, channels=1, **{name: 0.5})  # type: ignore[arg-type]

"""JPEGs decoded at half and quarter scale beside the same decoded whole."""

import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from tokenlearner_keras.models.names import model_config
from trainers.configuration.configuration import base_config
from trainers.configuration.data_options import CROPS
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.decoding import decode_window
from trainers.data.preprocessing.images import evaluation_example
from trainers.data.preprocessing.images import train_example
from trainers.data.preprocessing.videos import evaluation_views
from trainers.data.preprocessing.videos import train_clip
from trainers.experiment import make_preprocessing

Pixels = NDArray[np.uint8]


def _picture(height: int, width: int) -> Pixels:
    """Returns coloured patches with soft edges."""
    patches = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    size = (width, height)
    return np.asarray(Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC))


def _encoded(pixels: Pixels, mode: str = "RGB", kind: str = "JPEG", **options: Any) -> tf.Tensor:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **{"quality": 95, **options})
    return tf.constant(buffer.getvalue())


def _mean_difference(one: tf.Tensor, other: tf.Tensor) -> float:
    return float(np.abs(one.numpy().astype(int) - other.numpy().astype(int)).mean())


def _both(encoded: tf.Tensor, seed: int | None = None, **settings: Any) -> tuple[tf.Tensor, ...]:
    """Returns an example with the option and without it; the evaluation's without a seed."""
    results = []
    for scaled in (True, False):
        config = PreprocessingConfig((24, 32), scaled_decoding=scaled, **settings)
        example = {"encoded": encoded}
        if seed is None:
            results.append(evaluation_example(example, config))
        else:
            results.append(train_example(example, tf.constant([7, seed]), config))
    return tuple(results)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_of_images(crop: str, interpolation: str) -> None:
    encoded = _encoded(_picture(243, 321))
    settings: dict[str, Any] = {"crop": crop, "interpolation": interpolation}
    differences = [_mean_difference(*_both(encoded, seed, **settings)) for seed in range(8)]
    differences += [
        _mean_difference(*_both(encoded, eval_crop_fraction=fraction, **settings))
        for fraction in (0.875, 1.0)
    ]
    assert 0 < max(differences) < 4


def _window(encoded: tf.Tensor, window: list[int], smallest: tuple[int, int]) -> NDArray[Any]:
    pixels = decode_window({"encoded": encoded}, lambda *_: tf.constant(window), smallest=smallest)
    return np.asarray(pixels)


@pytest.mark.parametrize(
    ("window", "smallest", "size"),
    [
        ([0, 0, 64, 96], (32, 48), (32, 48)),
        ([0, 0, 63, 96], (32, 48), (63, 96)),
        ([0, 0, 64, 95], (32, 48), (64, 95)),
        ([1, 3, 128, 192], (32, 48), (32, 48)),
        ([3, 1, 127, 192], (32, 48), (63, 96)),
        ([0, 0, 131, 197], (2, 3), (33, 49)),
    ],
)
def test_scale(window: list[int], smallest: tuple[int, int], size: tuple[int, int]) -> None:
    assert _window(_encoded(_picture(131, 197)), window, smallest).shape == (*size, 3)


def test_windows_stay_in_place() -> None:
    y, x = np.mgrid[0:199, 0:241]
    slope = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    encoded = _encoded(slope, quality=100, subsampling=0)
    generator = np.random.default_rng(0)
    for _ in range(40):
        height, width = generator.integers(20, (199, 241))
        top, left = generator.integers(0, (200 - height, 242 - width))
        for divisor in (2, 4):
            smallest = (int(height) // divisor, int(width) // divisor)
            found = _window(encoded, [top, left, height, width], smallest)
            assert 0 <= found.shape[0] - smallest[0] <= 1
            assert 0 <= found.shape[1] - smallest[1] <= 1
            # The centre of mass, within half a pixel of the result and a quarter of a grey level.
            centre = found[..., :2].mean(axis=(0, 1))
            expected = [left + (width - 1) / 2, top + (height - 1) / 2]
            np.testing.assert_allclose(centre, expected, atol=divisor / 2 + 0.25)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 5), (101, 77), (427, 640)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_sizes_and_colours(mode: str, height: int, width: int) -> None:
    encoded = _encoded(_picture(height, width), mode)
    assert _mean_difference(*_both(encoded, 1)) < 4
    assert _mean_difference(*_both(encoded)) < 4


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_formats_are_decoded_as_before(kind: str) -> None:
    encoded = _encoded(_picture(200, 300), kind=kind)
    for seed in (None, 0):
        np.testing.assert_array_equal(*_both(encoded, seed))


@pytest.mark.parametrize("orientation", [1, 4, 6])
def test_turned_photographs(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Upright, both sides are twice those of the result; as stored, one is not.
    encoded = _encoded(_picture(64, 48) if orientation == 6 else _picture(48, 64), exif=exif)
    scaled, full = _both(encoded, exif_orientation=True, eval_crop_fraction=1.0)
    assert 0 < _mean_difference(scaled, full) < 4


def _video(size: tuple[int, int] = (130, 170), **options: Any) -> dict[str, tf.Tensor]:
    picture = _picture(160, 220)
    cuts = [picture[k : k + size[0], 3 * k : 3 * k + size[1]] for k in range(6)]
    return {"frames": tf.stack([_encoded(cut, **options) for cut in cuts])}


def _clips(video: dict[str, tf.Tensor], scaled: bool) -> tf.Tensor:
    config = VideoPreprocessingConfig(
        (24, 32), 4, stride=1, min_resize=32, spatial_views=3, scaled_decoding=scaled
    )
    clips = [train_clip(video, tf.constant([7, seed]), config) for seed in range(4)]
    return tf.concat([clips, evaluation_views(video, config)], axis=0)


def test_pixels_of_videos() -> None:
    assert 0 < _mean_difference(_clips(_video(), True), _clips(_video(), False)) < 4


def test_videos_of_other_formats() -> None:
    video = _video(kind="PNG")
    np.testing.assert_array_equal(_clips(video, True), _clips(video, False))


def test_encoded_and_raw_videos_agree() -> None:
    frames = _video()["frames"]
    raw = {"video": tf.stack([tf.io.decode_jpeg(frame) for frame in frames])}
    np.testing.assert_array_equal(_clips({"frames": frames}, False), _clips(raw, False))


@pytest.mark.parametrize("scaled", [False, True])
def test_frames_that_differ_in_size(scaled: bool) -> None:
    # At half scale both have the same size.
    frames = tf.concat([_video()["frames"][:5], _video((129, 170))["frames"][:1]], axis=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in size"):
        _clips({"frames": frames}, scaled)


@pytest.mark.parametrize("name", ["vit_ti16", "vivit_ti16x2"])
def test_the_key_reaches_the_preprocessing(name: str) -> None:
    config = base_config()
    assert not make_preprocessing(config, model_config(name)).scaled_decoding
    config.data.scaled_decoding = True
    assert make_preprocessing(config, model_config(name)).scaled_decoding

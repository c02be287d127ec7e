"""Models of other inputs than RGB, and public weights in them."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.goldens import golden_model
from tests.helpers.round_trips import waken
from tests.helpers.small_models import small_model
from tests.helpers.vit_checkpoints import KERNEL
from tests.helpers.vit_checkpoints import parameter_value
from tokenlearner_keras.layers.patch_embedding import adapt_channels
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig
from tokenlearner_keras.weights.transfer import transfer_weights

pytestmark = pytest.mark.every_backend

NAMES = ["vit_ti8_d1_tl4at0", "vivit_ti8_d1_tl4at0", "vivit_ti8x2_d1_tl4at0"]


def _assert_near(received: Any, expected: Any) -> None:
    received, expected = to_numpy(received), to_numpy(expected)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(received, expected, atol=2e-5 * np.abs(expected).max())


def _repeated(images: np.ndarray, channels: int) -> np.ndarray:
    return np.repeat(images, channels, axis=-1)


@pytest.mark.parametrize("kind", [tk.VisionTransformerConfig, X2Plus1DConfig])
def test_configurations_keep_the_channels(kind: Any) -> None:
    config = kind(channels=np.int64(1))
    assert config.input_shape[-1] == 1
    assert kind.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    older = kind().to_dict()
    del older["channels"]
    assert kind.from_dict(older) == kind(channels=3)
    for wrong in (0, 1.5, None):
        with pytest.raises(ValueError, match="`channels` must be an integer of at least 1"):
            kind(channels=wrong)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 4])
def test_models_train_and_load_with_any_channels(name: str, channels: int, tmp_path: Path) -> None:
    model = small_model(name, channels=channels)
    assert model.input_shape[-1] == channels
    x = random_inputs(model)
    model.compile("sgd", "mse")
    before = to_numpy(model.get_layer("embedding").projection.kernel).copy()
    model.fit(x, np.ones((len(x), model.output_shape[-1])), verbose=0)
    assert np.abs(to_numpy(model.get_layer("embedding").projection.kernel) - before).max() > 0
    model.save(tmp_path / "model.keras")
    _assert_near(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))


def test_a_convolutional_model_of_grey_videos() -> None:
    options = {"num_classes": 2, "image_size": 32, "num_frames": 4, "representation_size": None}
    model = tk.create_model("x2plus1d_m", channels=1, depths=(1, 1, 1, 1), **options)
    assert model(np.zeros((1, 4, 32, 32, 1), "float32")).shape == (1, 2)


def test_only_the_embedding_costs_less() -> None:
    grey, colour = (small_model(NAMES[0], channels=channels) for channels in (1, 3))
    kernel = colour.get_layer("embedding").projection.kernel
    positions = colour.get_layer("embedding").output.shape[1:3]
    saved = int(np.prod(kernel.shape)) * 2 // 3
    assert colour.count_params() - grey.count_params() == saved
    assert tk.count_macs(colour) - tk.count_macs(grey) == saved * int(np.prod(positions))


@pytest.mark.parametrize("channels", [1, 4])
def test_resizing_and_insertion_keep_the_channels(channels: int) -> None:
    model = small_model("vit_ti8_d2", channels=channels)
    changed = tk.insert_token_learner(model, "encoder_block_1", tk.TokenLearnerV11(2, name="tl"))
    larger = tk.resize_model(changed, 40)
    assert larger.input_shape == (None, 40, 40, channels)
    x = random(2, 40, 40, channels)
    assert tk.attention_maps(larger, x)["tl"].shape == (2, 2, 5, 5)


def test_grey_attention_is_drawn_like_its_colours() -> None:
    pytest.importorskip("matplotlib")
    images, maps = random(2, 8, 8, 1, seed=1), np.ones((2, 1, 2, 2), "float32")
    images = (images - images.min()) / np.ptp(images)
    shown = [
        [axis.images[0].get_array() for axis in tk.plot_attention_maps(each, maps).axes]
        for each in (images, _repeated(images, 3))
    ]
    np.testing.assert_array_equal(*shown)


def test_public_weights_give_a_grey_image_the_logits_of_its_colours(tmp_path: Path) -> None:
    grey, colour = golden_model(channels=1, classifier="token"), golden_model(classifier="token")
    assert tk.load_npz(colour, CHECKPOINT).is_exact
    report = tk.load_npz(grey, CHECKPOINT)
    assert report.resized == (KERNEL,) and not (report.skipped or report.missing)
    images = random(2, 32, 32, 1)
    _assert_near(grey(images), colour(_repeated(images, 3)))
    with pytest.raises(ValueError, match="strict=True"):
        tk.load_npz(golden_model(channels=1, classifier="token"), CHECKPOINT, strict=True)


@pytest.mark.parametrize("channels", [2, 4, 5, 6])
def test_public_weights_are_repeated_for_more_channels(channels: int) -> None:
    """timm's convention: in a cycle, scaled by 3 / channels."""
    model, colour = (golden_model(channels=each, classifier="token") for each in (channels, 3))
    tk.load_npz(colour, CHECKPOINT)
    assert tk.load_npz(model, CHECKPOINT).resized == (KERNEL,)
    kernel, source = parameter_value(model, KERNEL), parameter_value(colour, KERNEL)
    for channel in range(channels):
        expected = source[:, :, channel % 3] * 3 / channels
        np.testing.assert_allclose(kernel[:, :, channel], expected, rtol=1e-6)
    if channels % 3 == 0:
        images = random(2, 32, 32, 1)
        _assert_near(model(_repeated(images, channels)), colour(_repeated(images, 3)))


def test_public_weights_of_images_start_a_grey_video_model() -> None:
    colour = golden_model()
    video = golden_model(num_frames=4, tubelet_size=2, tubelet_inflation="average", channels=1)
    for model in (colour, video):
        tk.load_npz(model, CHECKPOINT)
    images = random(2, 32, 32, 1)
    still = np.repeat(images[:, None], 4, axis=1)
    _assert_near(video(still), colour(_repeated(images, 3)))


@pytest.mark.parametrize("names", [("vit_ti8_d1", "vivit_ti8x2_d1"), ("vit_ti8_d1", "vit_ti8_d1")])
def test_weights_of_a_model_adapt(names: tuple[str, str]) -> None:
    source, model = small_model(names[0]), small_model(names[1], channels=1)
    waken(source)
    report = transfer_weights(model, source)
    assert "embedding/projection/kernel" in report.resized
    images = random(2, *source.input_shape[1:3], 1)
    x = np.repeat(images[:, None], 4, axis=1) if "vivit" in names[1] else images
    _assert_near(model(x), source(_repeated(images, 3)))


def test_weights_of_a_grey_model_start_one_of_colours() -> None:
    source, model = small_model("vit_ti8_d1", channels=1), small_model("vit_ti8_d1")
    waken(source)
    transfer_weights(model, source)
    images = random_inputs(source)
    _assert_near(model(_repeated(images, 3)), source(images))


def test_the_same_channels_change_nothing() -> None:
    kernel = random(2, 2, 3, 4)
    assert adapt_channels(kernel, 3) is kernel


def test_parameters_of_the_reference_must_fit() -> None:
    with pytest.raises(ValueError, match="embedding/kernel.*shape"):
        params = {KERNEL: random(8, 8, 3, 24)}
        tk.load_reference_params(golden_model(channels=1), params, strict=False)

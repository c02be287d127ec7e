"""Weights of one model in another: images to videos, other sizes, and what cannot fit."""

from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import ON_JAX
from tests.helpers.round_trips import waken
from tests.helpers.small_models import small_model
from tokenlearner_keras.weights.transfer import transfer_weights

# Models of many shapes, and JAX compiles each operation of each shape: there one test is quick.
pytestmark = [pytest.mark.slow] if ON_JAX else []
TABLE = "position_embedding/table"
KERNEL = "embedding/projection/kernel"
#: An image model and the video model that it starts.
PAIRS = [
    ("vit_ti8_d2", "vivit_ti8x2_d2"),
    ("vit_ti8_d1", "vivit_ti8_d1"),
    ("vit_ti8_d2_tl4at1_v10", "vivit_ti8x2_d2_tl4at1_v10"),
    ("vit_ti8_d2_tl4at1_v10_fuser_linear", "vivit_ti8x2_d2_tl4at1_v10_fuser_linear"),
    ("vit_ti8_d2_tl4at1_mha", "vivit_ti8x2_d2_tl4at1_mha"),
    ("vit_ti8_d2_tl4at1", "vivit_ti8x2_d2_tl4at1_st"),
    ("vit_ti8_d2_tl4at1_mha", "vivit_ti8x2_d2_tl4at1_st_mha"),
    ("vit_ti8_d2_tl4at1_pm_fuser", "vivit_ti8x2_d2_tl4at1_st_pm_fuser"),
    ("vit_ti8_d3_tl8at1_merge", "vivit_ti8x2_d3_tl8at1_merge"),
]


def _image_model(name: str = "vit_ti8_d1_tl4at0", **fields: Any) -> keras.Model:
    model = small_model(name, **fields)
    waken(model)
    return model


def _still(images: np.ndarray, num_frames: int) -> np.ndarray:
    return np.repeat(images[:, None], num_frames, axis=1)


def _call(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return to_numpy(model(x))


def _output(model: keras.Model, layer: str, x: np.ndarray) -> np.ndarray:
    return _call(keras.Model(model.input, model.get_layer(layer).output), x)


def _assert_near(received: np.ndarray, expected: np.ndarray) -> None:
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(received, expected, atol=2e-5 * np.abs(expected).max())


def _weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: to_numpy(variable) for variable in model.trainable_variables}


@pytest.mark.parametrize("names", PAIRS)
def test_a_still_video_gets_the_logits_of_its_image(names: tuple[str, str]) -> None:
    """Exact but for rounding: all frames have the same tokens at every block."""
    source, model = _image_model(names[0]), small_model(names[1])
    report = transfer_weights(model, source)
    assert report.resized == ((KERNEL, TABLE) if "x" in names[1] else (TABLE,))
    assert not (report.skipped or report.missing or report.left_over)
    images = random_inputs(source)
    _assert_near(_call(model, _still(images, 4)), _call(source, images))


@pytest.mark.parametrize("inflation", ["average", None])
def test_the_first_tokens_of_every_time_step_are_the_images(inflation: str | None) -> None:
    source = _image_model(classifier="token")
    model = small_model(
        "vivit_ti8x3_d1_tl4at0", num_frames=6, tubelet_inflation=inflation, classifier="token"
    )
    transfer_weights(model, source)
    images = random_inputs(source)
    positions = _output(source, "position_embedding", images)
    received = _output(model, "position_embedding", _still(images, 6))
    _assert_near(received[:, 0], positions[:, 0])  # the class token, in front once
    for step in np.split(received[:, 1:], 2, axis=1):
        _assert_near(step, positions[:, 1:])
    tokens = _output(source, "token_learner_0", images)
    for step in np.moveaxis(_output(model, "token_learner_0", _still(images, 6)), 1, 0):
        _assert_near(step, tokens)
    # Which frames of a tubelet are seen: all of them, or the one in the middle.
    shares = np.abs(_weights(model)[KERNEL]).sum((1, 2, 3, 4))
    expected = [1 / 3] * 3 if inflation == "average" else [0, 1, 0]
    np.testing.assert_allclose(shares / shares.sum(), expected, atol=1e-5)


def test_another_grid_and_other_classes() -> None:
    source = _image_model(classifier="map")
    model = small_model("vivit_ti8x2_d1_tl4at0", image_size=(40, 24), classifier="map")
    transfer_weights(model, source)
    images = random(2, 40, 24, 3)
    _assert_near(_call(model, _still(images, 4)), _call(tk.resize_model(source, (40, 24)), images))
    other = small_model("vivit_ti8x2_d1_tl4at0", num_classes=9, classifier="map")
    before = _weights(other)
    assert transfer_weights(other, source).skipped == ("head/bias", "head/kernel")
    after = _weights(other)
    kept = {name for name in before if np.array_equal(before[name], after[name])}
    assert kept == {"head/bias", "head/kernel"}


def test_a_plain_model_starts_one_with_a_fresh_token_learner() -> None:
    source = _image_model("vit_ti8_d1")
    model = small_model("vivit_ti8x2_d1_tl4at0")
    before = _weights(model)
    report = transfer_weights(model, source)
    assert report.missing and all(name.startswith("token_learner_0/") for name in report.missing)
    after, expected = _weights(model), _weights(source)
    for name in report.missing:
        np.testing.assert_array_equal(after[name], before[name])
    for name in report.loaded:
        np.testing.assert_array_equal(after[name], expected[name])
    assert len(report.loaded) == len(expected) - 2
    back = small_model("vit_ti8_d1")
    left_over = transfer_weights(back, _image_model()).left_over
    assert left_over and all(name.startswith("token_learner_0/") for name in left_over)


@pytest.mark.parametrize("direction", ["to a class token", "from a class token"])
def test_the_row_of_a_class_token(direction: str) -> None:
    classifiers = ("gap", "token") if direction.startswith("to") else ("token", "gap")
    source = _image_model(classifier=classifiers[0])
    model = small_model("vivit_ti8x2_d1_tl4at0", classifier=classifiers[1])
    own, expected = _weights(model)[TABLE][0], _weights(source)[TABLE][0]
    report = transfer_weights(model, source)
    table = _weights(model)[TABLE][0]
    if classifiers[1] == "token":
        assert report.missing == ("class_token/token",)
        expected = np.concatenate([own[:1], expected, expected])
    else:
        assert report.left_over == ("class_token/token",)
        expected = np.tile(expected[1:], (2, 1))
    np.testing.assert_array_equal(table, expected)


def test_videos_of_another_size_and_length() -> None:
    source = _image_model("vivit_ti8x2_d1_tl4at0_fuser")
    model = small_model("vivit_ti8x2_d1_tl4at0_fuser", image_size=(40, 24), num_frames=8)
    assert transfer_weights(model, source).resized == (TABLE,)
    expected = tk.resize_model(source, (40, 24), num_frames=8)
    x = random_inputs(model)
    assert np.array_equal(_call(model, x), _call(expected, x))
    # What counts are the frames that are embedded.
    sampled = small_model("vivit_ti8x2_d1_tl4at0_fuser", num_frames=9, sample_frames=4)
    assert not transfer_weights(sampled, source).resized


MISFITS: list[tuple[str, dict[str, Any], str]] = [
    (
        "vivit_ti8x2_d1_tl4at0",
        {"width": 32},
        r"projection/bias: expected shape \(32,\), received \(16,\)",
    ),
    ("vivit_ti8x2_d2_tl4at0", {}, "encoder blocks: expected 2, received 1"),
    ("vivit_ti8x2_d1_tl4at0", {"num_heads": 4}, "block_0: expected 4 heads, received 2"),
    ("vivit_ti8x2_d1_tl8at0", {}, r"expected shape \(64, 8\), received \(64, 4\)"),
    ("vivit_ti8x2_d1_tl4at0_v10", {}, "expected a TokenLearner, received a TokenLearnerV11"),
    ("vivit_ti4x2_d1_tl4at0", {}, r"received \(8, 8, 3, 16\)"),
]


@pytest.mark.parametrize(("name", "fields", "message"), MISFITS)
def test_what_does_not_fit_is_named_and_changes_nothing(
    name: str, fields: dict[str, Any], message: str
) -> None:
    model, source = small_model(name, **fields), _image_model()
    before = _weights(model)
    with pytest.raises(ValueError, match=message) as raised:
        transfer_weights(model, source)
    assert "Choose a model of the same width, depth, heads" in str(raised.value)
    for path, value in _weights(model).items():
        np.testing.assert_array_equal(value, before[path])


def test_means_of_whole_clips_start_from_an_image_model() -> None:
    """Sums grow with the frames."""
    source = _image_model("vit_ti8_d2_tl4at1_v10", token_learner_pooling="mean")
    model = small_model("vivit_ti8x2_d2_tl4at1_st_v10", token_learner_pooling="mean")
    assert transfer_weights(model, source).resized == (KERNEL, TABLE)
    images = random_inputs(source)
    _assert_near(_call(model, _still(images, 4)), _call(source, images))
    by_frame = small_model("vivit_ti8x2_d2_tl4at1_v10", token_learner_pooling="mean")
    assert not transfer_weights(by_frame, model).resized
    _assert_near(_call(by_frame, _still(images, 4)), _call(source, images))


def test_merging_needs_no_weights_of_its_own() -> None:
    source, merged = _image_model("vit_ti8_d3"), small_model("vit_ti8_d3_tl8at1_merge")
    report = transfer_weights(merged, source)
    assert report.is_exact
    back = small_model("vit_ti8_d3")
    transfer_weights(back, merged)
    images = random_inputs(source)
    _assert_near(_call(back, images), _call(source, images))


def test_a_token_learner_keeps_its_block_and_its_pooling() -> None:
    source = _image_model("vit_ti8_d2_tl4at1_v10")
    for name, fields, message in (
        ("vivit_ti8x2_d2_tl4at0_v10", {}, "expected before block 0, received before block 1"),
        (
            "vivit_ti8x2_d2_tl4at1_v10",
            {"token_learner_pooling": "mean"},
            "expected pooling 'mean', received 'sum'",
        ),
    ):
        model = small_model(name, **fields)
        before = _weights(model)
        with pytest.raises(ValueError, match=rf"token_learner_0: {message}\. Choose"):
            transfer_weights(model, source)
        for path, value in _weights(model).items():
            np.testing.assert_array_equal(value, before[path])


def test_fusers_that_cannot_start_each_other() -> None:
    source = _image_model("vit_ti8_d1_tl4at0_fuser")
    mixing = small_model("vivit_ti8x2_d1_tl4at0_fuser", fuser_mixing="video")
    with pytest.raises(ValueError, match=r"\(8, 8\), received \(4, 4\).*fuser_mixing='frame'"):
        transfer_weights(mixing, source)
    linear = small_model("vivit_ti8x2_d1_tl4at0_fuser_linear")
    with pytest.raises(ValueError, match="token_fuser_0: expected token_masking/kernel, received"):
        transfer_weights(linear, source)
    # Without a fuser in the source that of the model begins fresh.
    report = transfer_weights(mixing, _image_model())
    assert "token_learner_0/norm/gamma" in report.loaded
    assert "token_fuser_0/mixing/kernel" in report.missing


def test_models_of_another_kind() -> None:
    convolutional = tk.create_model(
        "x2plus1d_m", image_size=16, num_frames=2, num_classes=5, depths=(1,), widths=(4,),
        inner_widths=(8,), representation_size=None,
    )  # fmt: skip
    image, video = _image_model(), small_model("vivit_ti8x2_d1_tl4at0")
    for model, source in ((convolutional, image), (video, convolutional)):
        with pytest.raises(ValueError, match=r"no layers in common. Begin with fresh weights"):
            transfer_weights(model, source)
    with pytest.raises(ValueError, match=r"a model of videos: expected one of images"):
        transfer_weights(image, video)
    inputs = keras.Input((32, 48, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    foreign = keras.Model(inputs, keras.layers.Dense(5, name="head")(pooled))
    with pytest.raises(ValueError, match="another kind of model"):
        transfer_weights(image, foreign)

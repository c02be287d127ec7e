"""Models at another size than they were built for."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.small_models import small_model

NAMES = (
    "vit_ti8_d2",
    "vit_ti8_d3_tl4at1",
    "vit_ti8_d3_tl4at1_v10",
    "vit_ti8_d3_tl4at1_fuser",
    "vit_ti8_d4_tl2at2_pool2at1",
    "vivit_ti8x2_d3_tl4at1",
    "vivit_ti8_d3_tl4at1_fuser",
    "vit_ti8_d3_tl6at1_merge",
    "vivit_ti8_d3_tl4at1_st_mha_fuser",
    "vivit_ti8x2_d3_tl6at1_merge",
)


def _call(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return to_numpy(model(x))


def _table(model: keras.Model) -> np.ndarray:
    return to_numpy(model.get_layer("position_embedding").table)


@pytest.mark.parametrize(
    "name",
    [
        name if re.search("fuser|merge", name) else pytest.param(name, marks=pytest.mark.slow)
        for name in NAMES
    ],
)
@pytest.mark.parametrize("classifier", [pytest.param("gap", marks=pytest.mark.slow), "token"])
def test_a_resized_model_equals_one_built_at_that_size(name: str, classifier: str) -> None:
    model = small_model(name, classifier=classifier)
    expected = small_model(name, image_size=(40, 24), classifier=classifier)
    resized = tk.resize_model(model, (40, 24))
    assert resized.input_shape == expected.input_shape
    assert [layer.name for layer in resized.layers] == [layer.name for layer in model.layers]
    # The same weights, given positions that are known to be right.
    pairs = zip(model.get_weights(), expected.get_weights(), strict=True)
    expected.set_weights([ours if ours.shape == own.shape else own for ours, own in pairs])
    expected.get_layer("position_embedding").table.assign(_table(resized))
    x = random_inputs(resized)
    assert np.array_equal(_call(resized, x), _call(expected, x))
    # The original is what it was.
    assert _call(model, random_inputs(model)).shape == (2, 5)
    assert model.input_shape[-3:-1] == (32, 48)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_size_gives_the_same_model_with_weights_of_its_own(name: str) -> None:
    model = small_model(name)
    copy = tk.resize_model(model, (32, 48))
    x = random_inputs(model)
    before = _call(model, x)
    assert np.array_equal(_call(copy, x), before)
    copy.get_layer("head").bias.assign([9.0] * 5)
    assert np.array_equal(_call(model, x), before)


def test_positions_are_interpolated_and_the_class_tokens_kept() -> None:
    model = small_model("vit_ti8_d2", classifier="token")
    rows, columns = np.meshgrid(np.linspace(0, 3, 4), np.linspace(0, 5, 6), indexing="ij")
    ramp = np.stack([rows.ravel(), columns.ravel()], axis=-1).repeat(8, axis=-1)  # (24, 16)
    table = np.concatenate([np.full((1, 16), 7.0), ramp])[None].astype("float32")
    model.get_layer("position_embedding").table.assign(table)
    resized = _table(tk.resize_model(model, (56, 88)))[0]
    assert np.all(resized[0] == 7)
    grid = resized[1:].reshape(7, 11, 16)
    assert np.allclose(grid[..., 0], np.linspace(0, 3, 7)[:, None])
    assert np.allclose(grid[..., -1], np.linspace(0, 5, 11)[None])


@pytest.mark.slow
def test_a_saved_model_is_loaded_resized_trained_and_saved_again(tmp_path: Path) -> None:
    small_model("vit_ti8_d3_tl4at1", image_size=32).save(tmp_path / "small.keras")
    model = tk.resize_model(keras.saving.load_model(tmp_path / "small.keras"), 48)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = random_inputs(model)
    model.fit(x, np.array([0, 1]), verbose=0)
    model.save(tmp_path / "large.keras")
    loaded = keras.saving.load_model(tmp_path / "large.keras")
    assert np.array_equal(_call(loaded, x), _call(model, x))


def test_frozen_layers_and_dtypes_are_kept() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small_model("vit_ti8_d2_tl4at1")
    model.get_layer("embedding").trainable = False
    keras.config.set_dtype_policy("float32")
    resized = tk.resize_model(model, 64)
    assert not resized.get_layer("embedding").trainable
    assert resized.get_layer("encoder_block_0").compute_dtype == "bfloat16"
    assert resized.get_layer("head").compute_dtype == "float32"


def test_videos_of_another_length() -> None:
    model = small_model("vivit_ti8x2_d3_tl4at1")
    resized = tk.resize_model(model, (32, 48), num_frames=8)
    assert resized.input_shape == (None, 8, 32, 48, 3)
    old, new = _table(model).reshape(2, 24, 16), _table(resized).reshape(4, 24, 16)
    assert np.allclose(new[[0, 3]], old) and np.allclose(new[1], old[0] * 2 / 3 + old[1] / 3)
    sampled = small_model("vivit_ti8_d2", num_frames=6, sample_frames=2)
    assert tk.resize_model(sampled, 32, num_frames=9).input_shape == (None, 9, 32, 32, 3)
    # The paper's fuser mixes all frames' tokens: its matrix fits one length only.
    fused = small_model("vivit_ti8x2_d3_tl4at1_fuser", fuser_mixing="video")
    with pytest.raises(ValueError, match="cannot be resized to num_frames=8.*mixing='frame'"):
        tk.resize_model(fused, 32, num_frames=8)


@pytest.mark.parametrize("name", ["vivit_ti8x2_d3_tl8at1_merge", "vivit_ti8x2_d4_tl8at1_st_merge"])
def test_merging_of_longer_videos_leaves_as_many_tokens(name: str) -> None:
    model = small_model(name, classifier="token")
    expected = small_model(name, classifier="token", image_size=(40, 24), num_frames=8)
    resized = tk.resize_model(model, (40, 24), num_frames=8)
    for each in (resized, expected):
        tokens = each.get_layer("encoder_norm").output.shape[1]
        assert tokens == 1 + 8 * (1 if "_st" in name else 4)
    x = random_inputs(resized)
    expected.set_weights(resized.get_weights())
    assert np.array_equal(_call(resized, x), _call(expected, x))
    with pytest.raises(ValueError, match="cannot be resized .* mergings of .* tokens leave"):
        tk.resize_model(model, 8)


def test_merging_of_another_schedule_takes_away_as_many() -> None:
    inserted = tk.insert_token_learner(
        small_model("vit_ti8_d3"), "encoder_block_1", tk.TokenMerging(2), num_prefix_tokens=1
    )
    resized = tk.resize_model(inserted, (40, 24))
    assert resized.get_layer("encoder_norm").output.shape == (None, 13, 16)


@pytest.mark.parametrize("name", ["vit_ti8_d2_tl4at1", "vivit_ti8x2_d2_tl4at1"])
def test_a_call_with_another_size_fails_with_the_cure(name: str) -> None:
    model = small_model(name)
    x = np.zeros((2, *model.input_shape[1:-3], 40, 40, 3), "float32")
    with pytest.raises(ValueError, match=r"built for.*tk.resize_model\(model, \(40, 40\)\)"):
        model(x)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="tk.resize_model"):
        model.predict(x, verbose=0)
    if name.startswith("vivit"):
        with pytest.raises(ValueError, match=r"\(32, 48\), num_frames=6\)"):
            model(np.zeros((1, 6, 32, 48, 3), "float32"))


def test_what_cannot_be_resized() -> None:
    inputs = keras.Input((8, 8, 3))
    plain = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(ValueError, match="one PatchEmbedding and one PositionEmbedding"):
        tk.resize_model(plain, 16)
    model = small_model("vit_ti8_d2")
    with pytest.raises(ValueError, match="at least one whole patch"):
        tk.resize_model(model, 4)
    with pytest.raises(ValueError, match="`image_size`"):
        tk.resize_model(model, "large")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`num_frames` is for videos"):
        tk.resize_model(model, 32, num_frames=4)
    with pytest.raises(ValueError, match="must not be larger than the input's grid"):
        tk.resize_model(small_model("vit_ti8_d2_pool4at1"), 16)


def test_frozen_weights_stay_frozen() -> None:
    model = small_model("vit_ti8_d3_tl4at1")
    for name in ("embedding", "encoder_block_0"):
        model.get_layer(name).trainable = False
    model.get_layer("encoder_block_1").mlp.trainable = False
    resized = tk.resize_model(model, 32)
    expected = [variable.path for variable in model.trainable_weights]
    assert [variable.path for variable in resized.trainable_weights] == expected


@pytest.mark.parametrize(
    "shape",
    [(40, 40), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((48, 32), (33, 48)))],
)
def test_data_of_another_size_fails_and_leaves_the_model_whole(shape: tuple[int, int]) -> None:
    """Also a size that gives as many patches, whose positions would be scrambled."""
    model = small_model("vit_ti8_d2_tl4at1")
    right, wrong = random_inputs(model), np.zeros((2, *shape, 3), "float32")
    labels = np.array([0, 1])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(right, labels, verbose=0)
    hint = r"tk.resize_model\(model, "
    for run in (
        lambda: model.fit(wrong, labels, verbose=0),
        lambda: model.fit(right, labels, validation_data=(wrong, labels), verbose=0),
        lambda: model.evaluate(wrong, labels, verbose=0),
        lambda: model.predict(wrong, verbose=0),
        lambda: model.train_on_batch(wrong, labels),
        lambda: model.test_on_batch(wrong, labels),
        lambda: model.predict_on_batch(wrong),
        lambda: model(inputs=wrong),
        lambda: tk.attention_maps(model, wrong),
    ):
        with pytest.raises(ValueError, match=hint):
            run()
    assert np.all(np.isfinite(_call(model, right)))
    model.fit(right, labels, verbose=0)

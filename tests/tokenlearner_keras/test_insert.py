"""A TokenLearner put into a model that is there already: what the new model computes."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.encoders import encoder
from tests.helpers.encoders import input_of
from tests.helpers.small_models import SMALL
from tests.helpers.small_models import small_model
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.models.insert import insert_token_learner
from tokenlearner_keras.models.names import model_config


@pytest.mark.parametrize(
    ("plain", "named", "layer", "overrides"),
    [
        ("vit_ti8_d3", "vit_ti8_d3_tl4at1", tk.TokenLearnerV11, {}),
        ("vit_ti8_d3", "vit_ti8_d3_tl4at1_v10", tk.TokenLearner, {"classifier": "token"}),
        ("vit_ti8_d3", "vit_ti8_d3_tl4at0", tk.TokenLearnerV11, {"classifier": "map"}),
        ("vivit_ti8x2_d3", "vivit_ti8x2_d3_tl4at1", tk.TokenLearnerV11, {"num_frames": 4}),
        ("vit_ti8_d3", "vit_ti8_d3_tl4at1_pm", tk.PatchMerger, {"classifier": "token"}),
        ("vivit_ti8x2_d3", "vivit_ti8x2_d3_tl4at1_st_v10", tk.TokenLearner, {"per_frame": False}),
        ("vivit_ti8x2_d3", "vivit_ti8x2_d3_tl4at1_st_pm", tk.PatchMerger, {"per_frame": False}),
        (
            *("vivit_ti8x2_d3", "vivit_ti8x2_d3_tl4at2_v10", tk.TokenLearner),
            {"num_frames": 4, "classifier": "token", "dropout": 0.1},
        ),
    ],
)
def test_it_is_the_model_of_that_name(
    plain: str, named: str, layer: type, overrides: dict[str, Any]
) -> None:
    options = {key: overrides[key] for key in ("per_frame",) if key in overrides}
    expected = small_model(named, **overrides)
    model = small_model(plain, **{k: v for k, v in overrides.items() if k not in options})
    x = random_inputs(model)
    before = to_numpy(model(x))
    block = f"encoder_block_{named.split('at')[1][0]}"
    inserted = insert_token_learner(model, block, layer(4, name="token_learner_0", **options))
    expected.set_weights(inserted.get_weights())
    assert np.allclose(to_numpy(inserted(x)), to_numpy(expected(x)), atol=1e-6)
    assert type(inserted) is type(model) and inserted.name == model.name
    assert tk.count_macs(inserted) == tk.count_macs(expected)
    maps, expected_maps = tk.attention_maps(inserted, x), tk.attention_maps(expected, x)
    assert list(maps) == list(expected_maps) == ["token_learner_0"]
    assert np.allclose(maps["token_learner_0"], expected_maps["token_learner_0"], atol=1e-6)
    assert np.array_equal(to_numpy(model(x)), before)


def test_a_shortcut_carries_the_tokens() -> None:
    model = encoder()
    learner = tk.TokenLearnerV11(3, name="learner")
    inserted = insert_token_learner(model, before="norm_1", layer=learner)
    x = random_inputs(model)
    tokens = learner(keras.Model(model.input, model.get_layer("norm_1").input)(x))
    normed = model.get_layer("norm_1")(tokens)
    attended = tokens + model.get_layer("attention_1")(normed, normed)
    mixed = attended + model.get_layer("mlp_1")(attended)
    expected = model.get_layer("head")(keras.ops.mean(mixed, axis=1))
    assert np.allclose(to_numpy(inserted(x)), to_numpy(expected), atol=1e-5)


def test_the_multi_head_token_learner_goes_in_as_well() -> None:
    model = encoder()
    inserted = insert_token_learner(model, "norm_1", TokenLearnerMHA(5, num_heads=2), grid=(3, 4))
    (maps,) = tk.attention_maps(inserted, random_inputs(model)).values()
    assert maps.shape == (2, 5, 3, 4) and np.allclose(maps.sum((-1, -2)), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("plain", "named", "grids"),
    [
        ("vit_ti8_d3", "vit_ti8_d3_tl8at1_merge", [None, None]),
        ("vivit_ti8x2_d3", "vivit_ti8x2_d3_tl8at1_merge", [None, (2, 16, 1)]),
        ("vivit_ti8x2_d3", "vivit_ti8x2_d3_tl16at1_st_merge", [(8, 6), (32, 1)]),
    ],
)
def test_mergings_go_in_before_each_block(
    plain: str, named: str, grids: list[tuple[int, ...] | None]
) -> None:
    expected = small_model(named, classifier="token")
    model = small_model(plain, classifier="token")
    x = random_inputs(model)
    schedule = model_config(named, **SMALL, **({"num_frames": 4} if "vivit" in named else {}))
    for index, number in enumerate(schedule.num_merged):
        merging = tk.TokenMerging(number, name=f"token_merging_{index}")
        block = f"encoder_block_{1 + index}"
        model = insert_token_learner(model, block, merging, grid=grids[index], num_prefix_tokens=1)
    expected.set_weights(model.get_weights())
    assert tk.count_macs(model) == tk.count_macs(expected)
    # The first merging is the same; the second does not know what the first has merged.
    first, first_expected = (
        keras.Model(each.input, input_of(each, "encoder_block_1")) for each in (model, expected)
    )
    assert np.allclose(to_numpy(first(x)), to_numpy(first_expected(x)), atol=1e-6)
    assert to_numpy(model(x)).shape == to_numpy(expected(x)).shape
    with pytest.raises(ValueError, match="no TokenLearner layer"):
        tk.attention_maps(model, x)


def test_a_layer_of_clips_and_a_merging_need_their_shapes() -> None:
    image, video = small_model("vit_ti8_d2"), small_model("vivit_ti8x2_d2")
    for layer in (tk.TokenLearnerV11(2, per_frame=False), tk.TokenLearner(2, per_frame=False)):
        with pytest.raises(ValueError, match=r"per_frame=False.*grid \(4, 6\) of an image"):
            insert_token_learner(image, "encoder_block_1", layer)
        with pytest.raises(ValueError, match=r"grid=\(time, height, width\)"):
            insert_token_learner(video, "encoder_block_1", layer, grid=(8, 6))
        tokens = input_of(insert_token_learner(video, "encoder_block_1", layer), "encoder_block_1")
        assert tokens.shape == (None, 2, 16)
    grid = keras.Input((4, 6, 8))
    model = keras.Model(grid, layers.Activation("relu", name="here")(grid))
    with pytest.raises(ValueError, match=r"of an image"):
        insert_token_learner(model, "here", tk.TokenLearnerV11(2, per_frame=False))
    with pytest.raises(ValueError, match=r"TokenMerging takes sequences .* \(None, 4, 6, 8\)"):
        insert_token_learner(model, "here", tk.TokenMerging(3))
    with pytest.raises(ValueError, match=r"at most half .* here 12\..*smaller num_merged.$"):
        insert_token_learner(image, "encoder_block_1", tk.TokenMerging(13))


def test_both_models_train_the_same_weights_and_are_saved(tmp_path: Path) -> None:
    model = encoder()
    x, y = random_inputs(model, 8), np.ones((8, 3), "float32")
    inserted = insert_token_learner(model, "norm_1")
    before, first = to_numpy(model(x)), [to_numpy(w) for w in inserted.trainable_variables]
    inserted.compile(keras.optimizers.SGD(0.5), "mse")
    inserted.fit(x, y, epochs=2, verbose=0)
    for old, variable in zip(first, inserted.trainable_variables, strict=True):
        dead = variable.path.endswith(("key/bias", "token_masking/output/bias"))
        assert dead or not np.array_equal(old, to_numpy(variable)), variable.path
    assert not np.allclose(to_numpy(model(x)), before)
    for each in (model, inserted):
        each.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert np.array_equal(to_numpy(loaded(x)), to_numpy(each(x)))
    # A loaded model holds names that a fresh process would choose again.
    again = insert_token_learner(loaded, "norm_0")
    assert list(tk.attention_maps(again, x)) == ["token_learner_1", "token_learner"]


def test_models_of_the_package_are_saved_and_resized(tmp_path: Path) -> None:
    model = small_model("vit_ti8_d2", classifier="token")
    inserted = insert_token_learner(model, "encoder_block_1", tk.TokenLearner(4))
    x = random_inputs(model)
    inserted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(to_numpy(loaded(x)), to_numpy(inserted(x)))
    resized = tk.resize_model(inserted, (48, 64))
    assert tk.attention_maps(resized, random(2, 48, 64, 3)).popitem()[1].shape == (2, 4, 6, 8)


def test_every_tensor_keeps_its_dtype_whatever_policy_is_in_force() -> None:
    model = encoder(positions=13)
    keras.config.set_dtype_policy("mixed_bfloat16")
    learner = tk.TokenLearnerV11(2, dtype="float32")
    inserted = insert_token_learner(model, "norm_1", learner, num_prefix_tokens=1)
    made = [layer for layer in inserted.layers if layer not in model.layers]
    assert {keras.backend.standardize_dtype(each.output.dtype) for each in made} == {"float32"}
    low = insert_token_learner(model, "norm_1", tk.TokenLearnerV11(2, name="low"))
    assert low.get_layer("low").compute_dtype == "bfloat16"
    assert np.all(np.isfinite(to_numpy(low(random_inputs(model)))))


def test_layers_that_are_not_new_or_no_token_learners() -> None:
    model, learner = encoder(), tk.TokenLearnerV11(2, name="learner")
    inserted = insert_token_learner(model, "norm_1", learner)
    with pytest.raises(ValueError, match="`layer` must be new. 'learner'"):
        insert_token_learner(model, "norm_0", learner)
    with pytest.raises(ValueError, match="already. Give the TokenLearner another name"):
        insert_token_learner(inserted, "norm_0", tk.TokenLearnerV11(2, name="learner"))
    with pytest.raises(ValueError, match="must be a TokenLearner layer"):
        insert_token_learner(model, "norm_0", layers.Dense(2))  # type: ignore[arg-type]
    first, second = (insert_token_learner(model, name) for name in ("norm_0", "norm_1"))
    assert first.get_layer("token_learner") is not second.get_layer("token_learner")

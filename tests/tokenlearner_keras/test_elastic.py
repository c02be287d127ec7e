"""Models that work with the first of their learned tokens."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import waken
from tests.helpers.small_models import small_model

pytestmark = pytest.mark.every_backend

IMAGES = ("vit_ti8_d2_tl4at1", "vit_ti8_d2_tl4at1_mha", "vit_ti8_d2_tl4at1_pm")
VIDEOS = ("vivit_ti8x2_d2_tl4at1_st", "vivit_ti8x2_d2_tl4at1_fuser")
OVERRIDES: dict[str, dict[str, Any]] = {
    "vivit_ti8x2_d2_tl4at1_v10_fuser_linear": {"fuser_mixing": "video"}
}
NAMES = (*IMAGES, "vit_ti8_d2_tl4at1_v10", "vit_ti8_d3_tl4at1_fuser", *VIDEOS, *OVERRIDES)


def _model(name: str, **overrides: Any) -> keras.Model:
    model = small_model(name, **OVERRIDES.get(name, {}), **overrides)
    waken(model)
    return model


def _inputs(model: keras.Model) -> np.ndarray:
    return random(2, *model.input_shape[1:])


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_model_shares_the_weights_and_its_tokens_are_the_first(
    name: str, tmp_path: Path
) -> None:
    model = _model(name)
    x = _inputs(model)
    before = to_numpy(model(x))
    small = tk.set_num_tokens(model, 2)
    assert {id(each) for each in small.variables} == {id(each) for each in model.variables}
    assert type(small) is type(model) and small.output_shape == model.output_shape
    assert tk.count_macs(small) < tk.count_macs(model)
    output = to_numpy(small(x))
    assert np.abs(output - before).max() > 1e-3
    first = "token_learner_0"
    maps, whole = (tk.attention_maps(each, x)[first] for each in (small, model))
    axis = 2 if maps.ndim == 5 and model.get_layer(first).per_frame else 1
    assert maps.shape[axis] == 2
    assert np.allclose(maps, whole.take([0, 1], axis), atol=1e-5)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras", safe_mode=True)
    assert np.array_equal(to_numpy(loaded(x)), output)
    # The file has the weights of all tokens.
    assert np.allclose(to_numpy(tk.set_num_tokens(loaded, 4)(x)), before, atol=1e-5)
    assert np.array_equal(to_numpy(model(x)), before)


@pytest.mark.parametrize("name", [*IMAGES, "vit_ti8_d3_tl4at1_fuser", "vivit_ti8x2_d2_tl4at1_st"])
def test_a_smaller_model_costs_what_one_with_so_few_tokens_does(name: str) -> None:
    small = tk.set_num_tokens(small_model(name), 2)
    assert tk.count_macs(small) == tk.count_macs(small_model(name.replace("tl4", "tl2")))


def test_v10_computes_only_the_maps_that_are_used() -> None:
    model = small_model("vit_ti8_d1_tl4at0_v10")
    positions, width = 24, 16
    saved = tk.count_macs(model) - tk.count_macs(tk.set_num_tokens(model, 2))
    maps_and_sums = 2 * positions * (9 * 4 + width)
    projections_and_mlp = 2 * (4 * width * width + 2 * width * 24)
    attention = 2 * width * (4 * 4 - 2 * 2)
    assert saved == maps_and_sums + projections_and_mlp + attention


@pytest.mark.parametrize("mixing", ["frame", "video"])
@pytest.mark.parametrize("bottleneck", [None, 5])
def test_a_fuser_of_fewer_tokens_is_one_with_a_part_of_the_weights(
    mixing: str, bottleneck: int | None
) -> None:
    tokens, original = random(2, 3, 4, 6), random(2, 3, 5, 7, 6, seed=1)
    fuser = tk.TokenFuser(bottleneck, mixing=mixing)
    fuser(tokens, original)
    waken(fuser)
    first = tk.TokenFuser(bottleneck, mixing=mixing)
    first(tokens[:, :, :2], original)
    frames = 3 if mixing == "video" else 1
    kept = [4 * frame + token for frame in range(frames) for token in range(2)]
    for old, new in zip(fuser.weights, first.weights, strict=True):
        value = to_numpy(old)
        for axis, (size, wanted) in enumerate(zip(old.shape, new.shape, strict=True)):
            if size != wanted:
                value = value.take(kept if wanted == 2 * frames else [0, 1], axis)
        new.assign(value)
    shared = fuser.sharing_weights(num_tokens=4)
    found = to_numpy(shared(tokens[:, :, :2], original))
    assert np.abs(found).max() > 0.01
    assert np.allclose(found, to_numpy(first(tokens[:, :, :2], original)), atol=1e-6)
    with pytest.raises(ValueError, match="has weights for num_tokens=4. Received tokens"):
        shared(random(2, 3, 5, 6), original)


def test_training_the_smaller_model_trains_the_other() -> None:
    model = _model("vit_ti8_d2_tl4at1")
    small, x = tk.set_num_tokens(model, 2), _inputs(model)
    kernel = model.get_layer("token_learner_0").token_masking.output_layer.kernel
    before, old = to_numpy(kernel), to_numpy(model(x))
    small.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(True))
    small.fit(x, np.array([0, 1]), verbose=0)
    changed = np.abs(to_numpy(kernel) - before).max(axis=0)
    assert np.all(changed[:2] > 0) and np.all(changed[2:] == 0)
    assert not np.allclose(to_numpy(model(x)), old)


def test_models_of_users() -> None:
    features = keras.Input((4, 4, 8), name="features")
    learn = tk.TokenLearner(4, "mean", num_convolutions=1, name="learn")
    inner = keras.Model(features, learn(features), name="inner")
    images = keras.Input((4, 4, 8))
    tokens, maps = tk.TokenLearnerV11(3, name="other")(images, return_attention_maps=True)
    both = keras.layers.Concatenate(axis=1)([inner(images), inner(images + 1.0), tokens])
    pooled = keras.layers.GlobalAveragePooling1D()(both)
    model = keras.Model(images, {"classes": keras.layers.Dense(3)(pooled), "maps": maps})
    small, x = tk.set_num_tokens(model, 2), random(2, 4, 4, 8)
    found = small(x)
    assert tuple(found["maps"].shape) == (2, 2, 4, 4)
    whole = (inner(x), inner(x + 1.0), model.get_layer("other")(x))
    expected = np.concatenate([to_numpy(each)[:, :2] for each in whole], axis=1)
    dense = model.layers[-1]
    assert np.allclose(to_numpy(found["classes"]), to_numpy(dense(expected.mean(1))), atol=1e-5)
    assert tuple(inner(x).shape) == (2, 4, 8)
    sequential = keras.Sequential([keras.Input((4, 4, 8)), tk.PatchMerger(4)])
    assert tuple(tk.set_num_tokens(sequential, 1)(x).shape) == (2, 1, 8)


def test_convolutional_video_models() -> None:
    config = tk.X2Plus1DConfig(
        image_size=(16, 24),
        num_frames=3,
        stem_width=4,
        widths=(4, 6),
        inner_widths=(6, 8),
        depths=(1, 2),
        module="conv2d_token_learner",
        module_blocks=1,
        num_tokens=4,
        num_heads=2,
        key_width=4,
        remat=True,
    )
    model = tk.build_model(config)
    small, x = tk.set_num_tokens(model, 2), random(1, 3, 16, 24, 3)
    assert small.remat and tuple(small(x).shape) == tuple(model(x).shape)
    assert tk.count_macs(small) < tk.count_macs(model)


@pytest.mark.parametrize("num_tokens", [0, 2.0, True])
def test_numbers_that_are_none(num_tokens: Any) -> None:
    with pytest.raises(ValueError, match="`num_tokens` must be an integer of at least 1"):
        tk.set_num_tokens(small_model("vit_ti8_d1_tl4at0"), num_tokens)


def test_more_tokens_than_there_are() -> None:
    small = tk.set_num_tokens(small_model("vit_ti8_d1_tl4at0"), 2)
    with pytest.raises(ValueError, match="at most 4, the tokens of the layer 'token_learner_0'"):
        tk.set_num_tokens(small, 5)
    with pytest.raises(ValueError, match="`active_tokens` must not exceed `num_tokens`"):
        tk.TokenLearner(4, active_tokens=5)


@pytest.mark.parametrize(
    ("name", "message"),
    [("vit_ti8_d2", "no TokenLearner layer"), ("vit_ti8_d2_tl6at0_merge", "only TokenMerging")],
)
def test_models_without_learned_tokens(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tk.set_num_tokens(small_model(name), 2)


def test_layers_that_need_all_tokens_are_named() -> None:
    images = keras.Input((4, 4, 8))
    tokens = tk.TokenLearnerV11(4, name="learn")(images)
    outputs = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(tokens))
    model = keras.Model(images, outputs)
    calls = [len(layer._inbound_nodes) for layer in model.layers]
    with pytest.raises(ValueError, match=r"'head' of type Dense cannot take .* in place of Flatt"):
        tk.set_num_tokens(model, 2)
    assert [len(layer._inbound_nodes) for layer in model.layers] == calls


def test_a_fuser_of_several_frames_in_one_sequence_is_refused() -> None:
    clips = keras.Input((3, 4, 4, 8))
    tokens = keras.layers.Reshape((-1, 8))(tk.TokenLearnerV11(4)(clips))
    fused = tk.TokenFuser(name="fuser")(keras.layers.LayerNormalization()(tokens), clips)
    with pytest.raises(ValueError, match="'fuser' gets 6 tokens in one sequence.* place of 12"):
        tk.set_num_tokens(keras.Model(clips, fused), 2)


class _Hiding(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.learner = tk.TokenLearnerV11(4, name="hidden")

    def call(self, x: Any) -> Any:
        return self.learner(x)


def test_a_hidden_layer_is_named() -> None:
    images = keras.Input((4, 4, 8))
    model = keras.Model(images, _Hiding()(images))
    with pytest.raises(ValueError, match="_Hiding calls 'hidden' where set_num_tokens cannot"):
        tk.set_num_tokens(model, 2)

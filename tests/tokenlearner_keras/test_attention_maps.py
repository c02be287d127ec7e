"""The attention maps of whole models."""

import keras
import numpy as np
import pytest
from keras import layers

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.small_models import small_model
from tokenlearner_keras.introspection import attention_maps
from tokenlearner_keras.introspection import token_learners
from tokenlearner_keras.models.insert import insert_token_learner


def test_maps_of_every_token_learner_in_batches() -> None:
    model = small_model("vit_ti8_d3_tl4at1_fuser")
    x = random(5, 32, 48, 3)
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    maps = attention_maps(model, x, batch_size=2)
    assert list(maps) == ["token_learner_0", "token_learner_1"]
    assert all(m.shape == (5, 4, 4, 6) for m in maps.values())
    # The maps are those of the model's own forward pass.
    layer = model.get_layer("token_learner_1")
    features = keras.Model(model.input, layer.input)
    expected = layer(features(x), return_attention_maps=True)[1]
    assert np.allclose(maps["token_learner_1"], to_numpy(expected), atol=1e-6)
    # Asking leaves no trace in the model's graph.
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]


def test_a_model_without_token_learner_has_no_maps() -> None:
    with pytest.raises(ValueError, match="no TokenLearner layer"):
        attention_maps(small_model("vit_ti8_d2"), np.zeros((1, 32, 48, 3), "float32"))


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("name", "shape", "hint"),
    [
        ("vit_ti16_d1_tl4at0", (32, 48, 3), r"image\[None\]"),
        ("vivit_ti16x2_d1_tl4at0", (4, 32, 48, 3), r"clip\[None\]"),
    ],
)
def test_one_example_without_a_batch_axis(name: str, shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(ValueError, match=f"add a batch axis, {hint}"):
        attention_maps(small_model(name), np.zeros(shape, "float32"))


def test_images_for_a_video_model_are_not_taken_for_one_clip() -> None:
    model = small_model("vivit_ti16x2_d1_tl4at0")
    with pytest.raises(ValueError, match=r"Received shape \(1, 32, 48, 3\)\.$"):
        attention_maps(model, np.zeros((1, 32, 48, 3), "float32"))


def test_masks_of_the_layers_count() -> None:
    inputs = {"x": keras.Input((5, 6), name="x"), "mask": keras.Input((5,), name="mask")}
    tokens = tk.TokenLearnerV11(2, name="learner")(inputs["x"], mask=inputs["mask"])
    model = keras.Model(inputs, tokens)
    x = random(3, 5, 6)
    mask = np.array([[1, 1, 1, 0, 0]] * 3, "float32")
    maps = attention_maps(model, {"x": x, "mask": mask}, batch_size=2)["learner"]
    assert maps.shape == (3, 2, 5)
    assert np.all(maps[..., 3:] == 0) and np.allclose(maps.sum(-1), 1)


class _Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.learner = tk.TokenLearnerV11(2)

    def call(self, x: object) -> object:
        return self.learner(x)


def test_models_without_a_graph_are_refused() -> None:
    x = np.zeros((2, 5, 6), "float32")
    no_input = keras.Sequential([tk.TokenLearnerV11(2)])
    for model in (_Subclassed(), tk.TokenLearnerV11(2), "x", no_input):
        with pytest.raises(ValueError, match="graph of a functional or Sequential model"):
            attention_maps(model, x)
    sequential = keras.Sequential([keras.Input((5, 6)), tk.TokenLearnerV11(2, name="t")])
    assert attention_maps(sequential, x)["t"].shape == (2, 2, 5)
    with pytest.raises(ValueError, match="at least one example"):
        attention_maps(sequential, x[:0])
    with pytest.raises(ValueError, match="1 array"):
        attention_maps(sequential, [x[0], x[1]])


def _sequence_model(name: str) -> keras.Model:
    inputs = keras.Input((6, 8))
    x = layers.Dense(8, name="dense")(inputs)
    x = tk.TokenLearnerV11(3, name="learner")(x)
    return keras.Model(inputs, layers.Dense(8, name="head")(x), name=name)


def test_models_that_are_layers_also_in_the_middle() -> None:
    first, second = _sequence_model("first"), _sequence_model("second")
    within = keras.Sequential([keras.Input((3, 8)), tk.TokenLearnerV11(2, name="last")])
    within.name = "within"
    inputs = keras.Input((6, 8))
    middle = layers.Concatenate(1)([layers.LayerNormalization()(inputs), first(inputs)])
    model = keras.Model(inputs, within(second(middle[:, 3:])))
    x = random(5, 6, 8)
    maps = attention_maps(model, x, batch_size=2)
    assert list(maps) == ["first/learner", "second/learner", "within/last"]
    assert [m.shape for m in maps.values()] == [(5, 3, 6), (5, 3, 6), (5, 2, 3)]
    # What the second model sees is what its maps are made of.
    seen = keras.Model(inputs, middle[:, 3:])(x)
    expected = attention_maps(second, to_numpy(seen))["learner"]
    assert np.allclose(maps["second/learner"], expected, atol=1e-6)
    outer = keras.Model(inputs, model(inputs))
    names = [f"{model.name}/{name}" for name in maps]
    assert list(attention_maps(outer, x)) == names


def test_several_calls_are_numbered() -> None:
    learner, inputs = tk.TokenLearnerV11(4, name="learner"), keras.Input((9, 8))
    model = keras.Model(inputs, learner(learner(inputs)))
    x = random(3, 9, 8)
    maps = attention_maps(model, x, batch_size=2)
    assert {k: v.shape for k, v in maps.items()} == {
        "learner:0": (3, 4, 9),
        "learner:1": (3, 4, 4),
    }
    expected = learner(learner(x), return_attention_maps=True)[1]
    assert np.allclose(maps["learner:1"], to_numpy(expected), atol=1e-6)
    inner = _sequence_model("inner")
    twice = keras.Model(inputs := keras.Input((6, 8)), [inner(inputs), inner(inputs * 2.0)])
    assert list(attention_maps(twice, x[:, :6])) == ["inner:0/learner", "inner:1/learner"]


def test_calls_in_the_graphs_of_other_models_do_not_count() -> None:
    model = _sequence_model("model")
    x = random(2, 6, 8)
    before = attention_maps(model, x)
    inserted = insert_token_learner(model, "dense", tk.TokenLearnerV11(5, name="early"))
    assert model.get_layer("learner") is inserted.get_layer("learner")
    assert {k: v.shape for k, v in attention_maps(inserted, x).items()} == {
        "early": (2, 5, 6),
        "learner": (2, 3, 5),
    }
    assert np.array_equal(attention_maps(model, x)["learner"], before["learner"])


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_masks_that_layers_make_count_as_in_the_model(dtype: str) -> None:
    inputs = keras.Input((5, 8))
    x = layers.Masking()(inputs)
    tokens = tk.TokenLearnerV11(2, name="learner", dtype=dtype)(x)
    nested = keras.Model(inputs, tokens, name="nested")
    x = random(3, 5, 8)
    x[:, 3:] = 0
    for model in (nested, keras.Model(inputs, nested(inputs))):
        (maps,) = attention_maps(model, x).values()
        tokens = to_numpy(model(x))
        # Keras 3.12 loses a mask where it casts: then the model has none, either.
        assert np.allclose(maps @ x, tokens, atol=1e-5 if dtype == "float32" else 2e-2)
        if dtype == "float32":
            assert np.all(maps[..., 3:] == 0) and np.allclose(maps.sum(-1), 1, atol=1e-5)


@pytest.mark.every_backend
def test_video_maps_have_a_time_axis() -> None:
    model = small_model("vivit_ti16x2_d1_tl4at0", num_frames=4)
    maps = attention_maps(model, random(3, 4, 32, 48, 3), batch_size=2)
    assert {k: v.shape for k, v in maps.items()} == {"token_learner_0": (3, 2, 4, 2, 3)}


@pytest.mark.every_backend
@pytest.mark.parametrize("kind", ["", "_mha", "_pm"])
def test_maps_of_whole_clips_have_the_tokens_first(kind: str) -> None:
    model = small_model(f"vivit_ti16x2_d1_tl4at0_st{kind}", num_frames=4)
    (maps,) = attention_maps(model, random(3, 4, 32, 48, 3), batch_size=2).values()
    assert maps.shape == (3, 4, 2, 2, 3) and np.allclose(maps.sum((2, 3, 4)), 1, atol=1e-5)


def test_the_layers_behind_the_maps() -> None:
    first, second = _sequence_model("first"), tk.TokenLearnerV11(3, per_frame=False, name="clips")
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, second(second(first(inputs))))
    found = token_learners(model)
    assert list(found) == list(attention_maps(model, random(2, 6, 8)))
    assert list(found) == ["first/learner", "clips:0", "clips:1"]
    assert [layer.per_frame for layer in found.values()] == [True, False, False]
    assert token_learners(small_model("vit_ti8_d3_tl8at1_merge")) == {}


@pytest.mark.parametrize("kind", ["subclassed", "wrapped"])
def test_a_token_learner_out_of_sight_is_named(kind: str) -> None:
    inputs = keras.Input((5, 6) if kind == "subclassed" else (4, 5, 6))
    layer = _Subclassed()
    if kind == "wrapped":
        layer = layers.TimeDistributed(tk.TokenLearnerV11(2))
    model = keras.Model(inputs, [layer(inputs), tk.TokenLearnerV11(2)(inputs)])
    with pytest.raises(ValueError, match="calls the TokenLearner '.*' where attention_maps cannot"):
        attention_maps(model, np.zeros((1, *model.input_shape[1:]), "float32"))

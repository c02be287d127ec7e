"""The tokens inside a model, by layer name."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.small_models import small_model


def outputs_of(model: keras.Model, name: str, images: Any) -> np.ndarray:
    return to_numpy(keras.Model(model.input, model.get_layer(name).output)(images))


def arrays(model: keras.Model, images: Any) -> dict[str, np.ndarray]:
    return {name: to_numpy(x) for name, x in model(images).items()}


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("vit_ti8_d2_tl4at1", {}, {"encoder_block_0": (4, 6), "encoder_block_1": (4,)}),
        # As many tokens as positions are not on the grid for that.
        ("vit_ti8_d2_tl24at1", {}, {"encoder_block_0": (4, 6), "encoder_block_1": (24,)}),
        ("vit_ti8_d3_tl8at1_merge", {}, {"encoder_block_0": (4, 6), "encoder_block_2": (8,)}),
        ("vit_ti8_d2_tl4at1_fuser", {}, {"encoder_block_1": (4,), "encoder_norm": (4, 6)}),
        ("vit_ti8_d3_pool2at1", {}, {"encoder_block_0": (4, 6), "encoder_norm": (2, 2)}),
        ("vivit_ti16x2_d2_tl4at1", {}, {"encoder_block_0": (2, 2, 3), "encoder_norm": (8,)}),
        ("vivit_ti16x2_d2_tl4at1_st", {}, {"encoder_block_0": (2, 2, 3), "encoder_norm": (4,)}),
        ("vivit_ti16x2_d2_tl4at1_fuser", {}, {"encoder_norm": (2, 2, 3)}),
    ],
)
@pytest.mark.parametrize("classifier", ["gap", "token"])
def test_tokens_come_on_their_grid_if_they_have_one(
    name: str, options: dict[str, Any], shapes: dict[str, tuple[int, ...]], classifier: str
) -> None:
    model = small_model(name, classifier=classifier, **options)
    images = random_inputs(model)
    found = arrays(tk.features(model, list(shapes), prefix_tokens=True), images)
    prefix = int(classifier == "token")
    assert len(found) == len(shapes) * (1 + prefix)
    for layer, grid in shapes.items():
        sequence = outputs_of(model, layer, images)
        expected = sequence[:, prefix:].reshape(2, *grid, 16)
        assert np.allclose(found[layer], expected, atol=1e-5)
        if prefix:
            assert np.allclose(found[f"{layer}/prefix_tokens"], sequence[:, :1], atol=1e-5)
    without = tk.features(model, list(shapes))(images)
    assert {key: tuple(x.shape) for key, x in without.items()} == {
        layer: (2, *grid, 16) for layer, grid in shapes.items()
    }


def test_other_layers_come_as_they_are() -> None:
    model = small_model("vivit_ti16x2_d2_tl4at1")
    names = ["embedding", "token_learner_0", "pooling", "head"]
    found = tk.features(model, names).output
    assert {name: tuple(x.shape[1:]) for name, x in found.items()} == {
        "embedding": (2, 2, 3, 16),
        "token_learner_0": (2, 4, 16),
        "pooling": (16,),
        "head": (5,),
    }


def test_only_what_is_needed_is_in_the_model_and_the_size_is_checked() -> None:
    model = small_model("vit_ti8_d3")
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    part = tk.features(model, ["encoder_block_0"])
    assert "encoder_block_1" not in [layer.name for layer in part.layers]
    assert part.get_layer("encoder_block_0") is model.get_layer("encoder_block_0")
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]
    with pytest.raises(ValueError, match="tk.resize_model"):
        part(np.zeros((1, 8, 8, 3), "float32"))


@pytest.mark.every_backend
def test_layers_of_a_model_inside_a_model(tmp_path: Path) -> None:
    backbone = small_model("vit_ti8_d2_tl4at1", classifier="token")
    inputs = keras.Input((32, 48, 3))
    outer = keras.Model(inputs, keras.layers.Dense(2, name="new_head")(backbone(inputs * 2.0)))
    images = random_inputs(outer)
    path = f"{backbone.name}/encoder_block_0"
    model = tk.features(outer, [path, "token_learner_0", "new_head"], prefix_tokens=True)
    found = arrays(model, images)
    expected = outputs_of(backbone, "encoder_block_0", images * 2)
    assert np.allclose(found[path], expected[:, 1:].reshape(2, 4, 6, 16), atol=1e-5)
    assert np.allclose(found[f"{path}/prefix_tokens"], expected[:, :1], atol=1e-5)
    assert found["token_learner_0"].shape == (2, 4, 16)
    assert np.allclose(found["new_head"], to_numpy(outer(images)), atol=1e-5)
    tk.features(outer, [path], prefix_tokens=True).save(tmp_path / "features.keras")
    loaded = arrays(keras.models.load_model(tmp_path / "features.keras"), images)
    assert list(loaded) == [path, f"{path}/prefix_tokens"]
    assert all(np.allclose(found[name], loaded[name], atol=1e-6) for name in loaded)


@pytest.mark.every_backend
def test_a_head_on_the_grid_trains_the_blocks() -> None:
    model = small_model("vit_ti8_d2", classifier="token")
    tokens = tk.features(model, ["encoder_block_1"])
    labels = keras.layers.Dense(3)(tokens.output["encoder_block_1"])
    segmenter = keras.Model(tokens.input, labels)
    segmenter.compile("sgd", "mse")
    kernel = model.get_layer("encoder_block_0").mlp.hidden_layer.kernel
    before = np.array(to_numpy(kernel))
    images = random_inputs(segmenter)
    segmenter.fit(images, np.ones((2, 4, 6, 3), "float32"), verbose=0)
    assert not np.allclose(before, to_numpy(kernel))


def test_after_an_insertion_and_a_resize() -> None:
    model = small_model("vit_ti8_d3", classifier="token")
    inserted = tk.insert_token_learner(model, "encoder_block_1", tk.TokenLearnerV11(6, name="new"))
    names = ["encoder_block_0", "new", "encoder_block_1"]
    found = tk.features(inserted, names).output
    assert [tuple(found[name].shape[1:]) for name in names] == [(4, 6, 16), (6, 16), (6, 16)]
    larger = tk.resize_model(model, (64, 48))
    part = tk.features(model, ["encoder_norm"])
    for each in (tk.features(larger, ["encoder_norm"]), tk.resize_model(part, (64, 48))):
        assert tuple(each.output["encoder_norm"].shape) == (None, 8, 6, 16)


def test_a_call_out_of_several_has_a_number() -> None:
    block, inputs = keras.layers.Dense(4, name="block"), keras.Input((3, 4))
    model = keras.Model(inputs, block(block(inputs)))
    images = random_inputs(model)
    found = arrays(tk.features(model, ["block:0", "block:1"]), images)
    assert np.allclose(found["block:0"], to_numpy(block(images)), atol=1e-6)
    assert np.allclose(found["block:1"], to_numpy(model(images)), atol=1e-6)


def test_unknown_names_are_answered_with_those_there_are() -> None:
    model = small_model("vit_ti8_d2_tl4at1")
    with pytest.raises(ValueError, match="Near: encoder_block_1.* There are: embedding, .*, head"):
        tk.features(model, ["encoder_block_1", "encoder_blok_1"])
    for layers in ([], "encoder_block_1"):
        with pytest.raises(ValueError, match=r"list of names of layers, such as \['encoder_block"):
            tk.features(model, layers)
    inputs = keras.Input((32, 48, 3))
    twin = small_model("vit_ti8_d2")
    twin.name = "twin"
    two = keras.Model(inputs, [model(inputs), twin(inputs)])
    with pytest.raises(ValueError, match="several: pass a path, one of twin/head, .*/head"):
        tk.features(two, ["head"])
    with pytest.raises(ValueError, match="and .* more, see model.summary"):
        tk.features(tk.create_model("vit_ti16_d30_tl8at3_fuser", image_size=32), ["x"])

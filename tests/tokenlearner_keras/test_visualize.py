"""Attention maps of models, and pictures of them."""

from pathlib import Path

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tokenlearner_keras.visualize import overlay


def _model(name: str) -> keras.Model:
    return tk.create_model(
        name, image_size=(32, 48), num_classes=3, width=16, num_heads=2, mlp_dim=24
    )


def test_maps_of_every_token_learner_in_batches() -> None:
    model = _model("vit_ti8_d3_tl4at1_fuser")
    x = np.random.default_rng(0).normal(size=(5, 32, 48, 3)).astype("float32")
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    maps = tk.attention_maps(model, x, batch_size=2)
    assert list(maps) == ["token_learner_0", "token_learner_1"]
    assert all(m.shape == (5, 4, 4, 6) for m in maps.values())
    # The maps are those of the model's own forward pass.
    layer = model.get_layer("token_learner_1")
    features = keras.Model(model.input, layer.input)
    expected = layer(features(x), return_attention_maps=True)[1]
    assert np.allclose(maps["token_learner_1"], keras.ops.convert_to_numpy(expected), atol=1e-6)
    # Asking leaves no trace in the model's graph.
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]


def test_a_model_without_token_learner_has_no_maps() -> None:
    with pytest.raises(ValueError, match="no TokenLearner layer"):
        tk.attention_maps(_model("vit_ti8_d2"), np.zeros((1, 32, 48, 3), "float32"))


def test_masks_of_the_layers_count() -> None:
    inputs = {"x": keras.Input((5, 6), name="x"), "mask": keras.Input((5,), name="mask")}
    tokens = tk.TokenLearnerV11(2, name="learner")(inputs["x"], mask=inputs["mask"])
    model = keras.Model(inputs, tokens)
    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0]] * 3, "float32")
    maps = tk.attention_maps(model, {"x": x, "mask": mask}, batch_size=2)["learner"]
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
            tk.attention_maps(model, x)
    sequential = keras.Sequential([keras.Input((5, 6)), tk.TokenLearnerV11(2, name="t")])
    assert tk.attention_maps(sequential, x)["t"].shape == (2, 2, 5)
    with pytest.raises(ValueError, match="at least one example"):
        tk.attention_maps(sequential, x[:0])
    with pytest.raises(ValueError, match="1 array"):
        tk.attention_maps(sequential, [x[0], x[1]])


@pytest.mark.parametrize("value", [-1.0, 255.0, np.nan])
def test_values_that_are_no_colours_are_refused(value: float) -> None:
    images = np.full((1, 8, 8, 3), value, "float32")
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]"):
        tk.plot_attention_maps(images, np.ones((1, 2, 2, 2), "float32"))


def test_titles_are_plain_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    images, maps = np.zeros((2, 8, 8, 3), "uint8"), np.ones((2, 1, 2, 2), "float32")
    titles = np.array(["$a", "a$b$"])
    tk.plot_attention_maps(images, maps, tmp_path / "maps.png", titles)
    with pytest.raises(ValueError, match="0 titles"):
        tk.plot_attention_maps(images, maps, titles=[])


def test_nested_and_shared_layers_are_refused() -> None:
    inner = _model("vit_ti8_d2_tl4at1")
    inputs = keras.Input((32, 48, 3))
    with pytest.raises(ValueError, match="Call attention_maps on that model"):
        tk.attention_maps(keras.Model(inputs, inner(inputs)), np.zeros((1, 32, 48, 3)))
    layer, sequence = tk.TokenLearnerV11(4), keras.Input((4, 6))
    twice = keras.Model(sequence, layer(layer(sequence)))
    with pytest.raises(ValueError, match="called several times"):
        tk.attention_maps(twice, np.zeros((1, 4, 6)))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_plot_writes_a_picture(dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    images = np.full((2, 32, 48, 3), 128 if dtype == "uint8" else 0.5, dtype)
    maps = np.zeros((2, 3, 4, 6), "float32")
    maps[:, 1, :2] = 1
    path = tmp_path / "maps.png"
    figure = tk.plot_attention_maps(images, maps, path, titles=["one", "two"])
    assert len(figure.axes) == 2 * 4
    assert np.asarray(Image.open(path)).std() > 0


def test_overlay_colours_what_the_map_looks_at() -> None:
    weights = np.zeros((4, 6), "float32")
    weights[0, 0] = 0.2
    picture = overlay(np.full((32, 48, 3), 0.5, "float32"), weights)
    warmth = picture[..., 0] - picture[..., 2]
    assert picture.shape == (32, 48, 3)
    assert warmth[:8, :8].mean() > 0.2 and np.all(warmth[16:, 24:] == 0)


def test_shapes_that_do_not_fit() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="Expected images .* Received images of shape"):
        tk.plot_attention_maps(np.zeros((2, 8, 8, 3)), np.zeros((3, 4, 2, 2)))

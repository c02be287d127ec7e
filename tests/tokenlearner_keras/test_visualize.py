"""Attention maps of models, and pictures of them."""

from pathlib import Path

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk


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


def test_overlay_lights_what_the_map_looks_at() -> None:
    from tokenlearner_keras.visualize import overlay

    weights = np.zeros((4, 6), "float32")
    weights[0, 0] = 0.2
    lit = overlay(np.full((32, 48, 3), 0.5, "float32"), weights)
    assert lit.shape == (32, 48, 3) and lit[:8, :8].mean() > 3 * lit[16:, 24:].mean()


def test_shapes_that_do_not_fit() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="Expected images .* Received images of shape"):
        tk.plot_attention_maps(np.zeros((2, 8, 8, 3)), np.zeros((3, 4, 2, 2)))

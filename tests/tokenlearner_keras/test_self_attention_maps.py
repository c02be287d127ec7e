"""The self-attention of the blocks, beside an attention computed in NumPy."""

from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.small_models import small_model
from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.video_attention import ATTENTION_AXES
from tokenlearner_keras.layers.video_attention import GridAttention
from tokenlearner_keras.layers.video_attention import VectorTransformer

IMAGES = random(3, 32, 48, 3)


def inputs_of(model: keras.Model, name: str, images: Any) -> np.ndarray:
    return to_numpy(keras.Model(model.input, model.get_layer(name).input)(images))


def normalized(x: np.ndarray, norm: Any) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt(x.var(-1, keepdims=True) + norm.epsilon)
    return centred / scale * to_numpy(norm.gamma) + to_numpy(norm.beta)


def attention(queries: np.ndarray, keys: np.ndarray, layer: Any, heads: int) -> np.ndarray:
    """Returns softmax(q k / sqrt(dim)), (B, heads, N, M), of the inputs of a layer's two Dense."""
    parts = []
    for x, dense in ((queries, layer.query_layer), (keys, layer.key_layer)):
        x = x @ to_numpy(dense.kernel) + (to_numpy(dense.bias) if dense.use_bias else 0)
        parts.append(np.stack(np.split(x, heads, axis=-1), axis=1))
    logits = np.einsum("bhnd,bhmd->bhnm", *parts) / np.sqrt(parts[0].shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.every_backend
@pytest.mark.parametrize("form", ["auto", "plain", "fused"])
def test_weights_of_each_block_and_of_the_classifier(form: str) -> None:
    model = small_model("vit_ti8_d3_tl4at1", classifier="map", attention=form)
    maps = tk.attention_maps(model, IMAGES, batch_size=2, layers="all")
    blocks = [f"encoder_block_{index}" for index in range(3)]
    assert list(maps) == [blocks[0], "token_learner_0", *blocks[1:], "map_head"]
    assert maps["token_learner_0"].shape == (3, 4, 4, 6)
    for name in blocks:
        block, x = model.get_layer(name), inputs_of(model, name, IMAGES)
        x = normalized(x, block.attention_norm)
        expected = attention(x, x, block.attention, 2)
        assert maps[name].shape == expected.shape and maps[name].dtype == "float32"
        assert np.allclose(maps[name], expected, atol=1e-5)
    head, x = model.get_layer("map_head"), inputs_of(model, "map_head", IMAGES)
    probe = np.broadcast_to(to_numpy(head.probe), (3, 1, 16))
    expected = attention(probe, x, head.attention, 2)
    assert maps["map_head"].shape == (3, 2, 1, 4)
    assert np.allclose(maps["map_head"], expected, atol=1e-5)


def test_heads_are_averaged_but_token_learners_have_none() -> None:
    model = small_model("vit_ti8_d2_tl4at1", classifier="token")
    maps = tk.attention_maps(model, IMAGES, layers="all")
    averaged = tk.attention_maps(model, IMAGES, layers="all", average_heads=True)
    assert {name: array.shape for name, array in averaged.items()} == {
        "encoder_block_0": (3, 25, 25),
        "token_learner_0": (3, 4, 4, 6),
        "encoder_block_1": (3, 5, 5),
    }
    assert np.array_equal(maps["token_learner_0"], averaged["token_learner_0"])
    for name in ("encoder_block_0", "encoder_block_1"):
        assert np.allclose(averaged[name], maps[name].mean(1), atol=1e-6)


def test_layers_by_name() -> None:
    model = small_model("vit_ti8_d3_tl4at1")
    everything = tk.attention_maps(model, IMAGES, layers="all")
    outer = keras.Sequential([keras.Input(model.input_shape[1:]), model])
    for whole, path in ((model, ""), (outer, f"{model.name}/")):
        names = [f"{path}encoder_block_2", f"{path}token_learner_0"]
        maps = tk.attention_maps(whole, IMAGES, layers=names)
        assert sorted(maps) == names
        for name, array in maps.items():
            assert np.allclose(array, everything[name.removeprefix(path)], atol=1e-6)
    with pytest.raises(ValueError, match="Received: .*'head'.*encoder_block_0, token_learner_0"):
        tk.attention_maps(model, IMAGES, layers=["head"])
    with pytest.raises(ValueError, match="\"all\" or a list of names. Received: 'encoder_block_0'"):
        tk.attention_maps(model, IMAGES, layers="encoder_block_0")
    with pytest.raises(ValueError, match='no TokenLearner layer.* layers="all"'):
        tk.attention_maps(small_model("vit_ti8_d2"), IMAGES)
    with pytest.raises(ValueError, match="no TokenLearner layer and no attention layer"):
        dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        tk.attention_maps(dense, random(1, 3), layers="all")


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("name", "options", "tokens"),
    [
        ("vit_ti8_d2_tl4at1_fuser", {}, (24, 4)),
        ("vit_ti8_d3_tl8at1_merge", {}, (24, 16, 8)),
        ("vit_ti8_d2_tl4at1_pm", {"classifier": "token"}, (25, 5)),
        ("vivit_ti16x2_d2_tl4at1", {}, (12, 8)),
        ("vivit_ti16x2_d2_tl4at1_st", {}, (12, 4)),
        ("vit_ti8_d2", {"remat": True}, (24, 24)),
    ],
)
def test_every_kind_of_model(name: str, options: dict[str, Any], tokens: tuple[int, ...]) -> None:
    model = small_model(name, **options)
    images = random_inputs(model)
    maps = tk.attention_maps(model, images, layers="all")
    for index, count in enumerate(tokens):
        block = model.get_layer(f"encoder_block_{index}")
        x = normalized(inputs_of(model, block.name, images), block.attention_norm)
        assert maps[block.name].shape == (2, 2, count, count)
        assert np.allclose(maps[block.name], attention(x, x, block.attention, 2), atol=1e-5)


@pytest.mark.every_backend
def test_half_precision_weights_are_float32_with_exact_sums() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small_model("vit_ti8_d2_tl4at1_fuser", classifier="map")
    maps = tk.attention_maps(model, IMAGES, layers="all")
    for name in ("encoder_block_0", "encoder_block_1", "map_head"):
        assert maps[name].dtype == "float32"
        assert np.allclose(maps[name].sum(-1), 1, atol=1e-6)
    block = model.get_layer("encoder_block_0")
    x = normalized(inputs_of(model, block.name, IMAGES), block.attention_norm)
    assert np.allclose(maps[block.name], attention(x, x, block.attention, 2), atol=1e-2)


@pytest.mark.every_backend
@pytest.mark.parametrize("axes", ATTENTION_AXES)
def test_attention_of_a_grid_names_the_positions_that_attend(axes: str) -> None:
    inputs = keras.Input((3, 2, 4, 6))
    model = keras.Model(inputs, GridAttention(axes, 2, 4, name="grid_attention")(inputs))
    x = random(2, 3, 2, 4, 6)
    maps = tk.attention_maps(model, x, layers="all")["grid_attention"]
    apart, sequences = {
        "space_time": ((), x.reshape(2, 24, 6)),
        "space": ((3,), x.reshape(6, 8, 6)),
        "time": ((2, 4), x.transpose(0, 2, 3, 1, 4).reshape(16, 3, 6)),
    }[axes]
    expected = attention(sequences, sequences, model.get_layer("grid_attention"), 2)
    assert np.allclose(maps, expected.reshape(2, *apart, *expected.shape[1:]), atol=1e-5)


@pytest.mark.every_backend
def test_attention_of_vectors_and_layers_in_models_of_others() -> None:
    inputs = keras.Input((5, 8))
    x = VectorTransformer(name="vectors")(inputs)
    x = MultiHeadAttention(2, name="ours")(x, inputs[:, :3])
    x = keras.layers.MultiHeadAttention(2, 4, name="keras")(x, inputs)
    model = keras.Model(inputs, x)
    maps = tk.attention_maps(model, x := random(2, 5, 8), layers="all")
    assert maps["ours"].shape == (2, 2, 5, 3) and maps["keras"].shape == (2, 2, 5, 5)
    vectors = model.get_layer("vectors")
    normal = normalized(x, vectors.norm)
    assert np.allclose(maps["vectors"], attention(normal, normal, vectors.attention, 8), atol=1e-5)
    expected = attention(to_numpy(vectors(x)), x[:, :3], model.get_layer("ours"), 2)
    assert np.allclose(maps["ours"], expected, atol=1e-5)
    before = keras.Model(inputs, model.get_layer("ours").output)
    scores = model.get_layer("keras")(before(x), x, return_attention_scores=True)[1]
    assert np.allclose(maps["keras"], to_numpy(scores), atol=1e-6)

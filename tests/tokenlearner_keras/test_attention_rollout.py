"""The rollout of the attention back to the patches, beside products of matrices in NumPy."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.small_models import small_model
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding


def maps_of(model: keras.Model, images: Any) -> dict[str, np.ndarray]:
    return tk.attention_maps(model, images, layers="all", average_heads=True)


def rows(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(-1, keepdims=True)


def block(weights: np.ndarray) -> np.ndarray:
    return (weights + np.eye(weights.shape[-1])) / 2


def with_class_token(matrix: np.ndarray) -> np.ndarray:
    """Returns (B, 1 + S, 1 + N): the class token goes past."""
    whole = np.zeros((len(matrix), matrix.shape[1] + 1, matrix.shape[2] + 1))
    whole[:, 0, 0] = 1
    whole[:, 1:, 1:] = matrix
    return whole


def inputs_of(model: keras.Model, name: str, images: Any) -> list[np.ndarray]:
    tensors = model.get_layer(name)._inbound_nodes[0].input_tensors
    return [to_numpy(x) for x in keras.tree.flatten(keras.Model(model.input, tensors)(images))]


@pytest.mark.every_backend
@pytest.mark.parametrize("kind", ["", "_v10", "_mha", "_pm"])
def test_the_blocks_and_a_token_learner(kind: str) -> None:
    model = small_model(f"vit_ti8_d3_tl4at1{kind}")
    images = random(3, 32, 48, 3)
    maps = maps_of(model, images)
    learned = rows(maps["token_learner_0"].reshape(3, 4, 24))
    expected = block(maps["encoder_block_1"]) @ learned @ block(maps["encoder_block_0"])
    expected = block(maps["encoder_block_2"]) @ expected
    rollout = tk.attention_rollout(model, images, batch_size=2)
    assert rollout.shape == (3, 4, 6) and rollout.dtype == "float32"
    assert np.allclose(rollout.reshape(3, 24), expected.mean(1), atol=1e-5)
    assert np.allclose(rollout.sum((1, 2)), 1, atol=1e-5)


@pytest.mark.every_backend
def test_a_class_token() -> None:
    model = small_model("vit_ti8_d2_tl4at1", classifier="token")
    images = random(2, 32, 48, 3)
    maps = maps_of(model, images)
    learned = with_class_token(rows(maps["token_learner_0"].reshape(2, 4, 24)))
    expected = block(maps["encoder_block_1"]) @ learned @ block(maps["encoder_block_0"])
    expected = rows(expected[:, 0, 1:])  # of the class token, to the patches
    rollout = tk.attention_rollout(model, images)
    assert np.allclose(rollout.reshape(2, 24), expected, atol=1e-5)


@pytest.mark.every_backend
def test_a_classifier_that_attends_or_takes_the_maximum() -> None:
    images = random(2, 32, 48, 3)
    model = small_model("vit_ti8_d1", classifier="map")
    maps = maps_of(model, images)
    expected = (maps["map_head"] @ block(maps["encoder_block_0"])).reshape(2, 4, 6)
    assert np.allclose(tk.attention_rollout(model, images), expected, atol=1e-5)
    model = small_model("vit_ti8_d1", classifier="gmp")
    (x,) = inputs_of(model, "pooling", images)
    shares = np.stack([np.bincount(each.argmax(0), minlength=24) / 16 for each in x])
    expected = shares[:, None] @ block(maps_of(model, images)["encoder_block_0"])
    rollout = tk.attention_rollout(model, images)
    assert np.allclose(rollout, expected.reshape(2, 4, 6), atol=1e-5)


def test_a_model_that_returns_tokens_has_a_grid_for_each() -> None:
    model = small_model("vit_ti8_d2_tl4at1", classifier=None)
    images = random(2, 32, 48, 3)
    maps = maps_of(model, images)
    learned = rows(maps["token_learner_0"].reshape(2, 4, 24))
    expected = block(maps["encoder_block_1"]) @ learned @ block(maps["encoder_block_0"])
    rollout = tk.attention_rollout(model, images)
    assert np.allclose(rollout, expected.reshape(2, 4, 4, 6), atol=1e-5)
    inside = tk.features(model, ["encoder_block_0", "token_learner_0"])
    found = tk.attention_rollout(inside, images)
    expected = block(maps["encoder_block_0"])
    assert np.allclose(found["encoder_block_0"].reshape(2, 24, 24), expected, atol=1e-5)
    expected = (learned @ expected).reshape(2, 4, 4, 6)
    assert np.allclose(found["token_learner_0"], expected, atol=1e-5)


@pytest.mark.parametrize("whole_clip", [False, True])
def test_videos_have_a_time_axis(whole_clip: bool) -> None:
    model = small_model("vivit_ti16x2_d2_tl4at1" + "_st" * whole_clip)
    videos = random_inputs(model)
    maps = maps_of(model, videos)
    learned = maps["token_learner_0"]
    if whole_clip:
        matrix = rows(learned.reshape(2, 4, 12))
    else:
        matrix = np.zeros((2, 8, 12))
        for frame in range(2):
            own = rows(learned[:, frame].reshape(2, 4, 6))
            matrix[:, frame * 4 : frame * 4 + 4, frame * 6 : frame * 6 + 6] = own
    expected = block(maps["encoder_block_1"]) @ matrix @ block(maps["encoder_block_0"])
    rollout = tk.attention_rollout(model, videos)
    assert np.allclose(rollout, expected.mean(1).reshape(2, 2, 2, 3), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "mixing"),
    [
        pytest.param("vit_ti8_d2_tl4at1_fuser", "frame", marks=pytest.mark.every_backend),
        ("vit_ti8_d2_tl4at1_fuser_linear", "frame"),
        ("vivit_ti16x2_d2_tl4at1_fuser", "frame"),
        ("vivit_ti16x2_d2_tl4at1_fuser", "video"),
    ],
)
def test_a_token_fuser_and_its_residual(name: str, mixing: str) -> None:
    model = small_model(name, fuser_mixing=mixing)
    fuser = model.get_layer("token_fuser_0")
    kernel = random(*fuser.mixing_layer.kernel.shape)
    fuser.mixing_layer.kernel.assign(kernel)
    images = random_inputs(model)
    maps = maps_of(model, images)
    frames = 1 if name.startswith("vit_") else 2
    maps["token_learner_0"] = maps["token_learner_0"].reshape(2, frames, 4, -1)
    positions = maps["token_learner_0"].shape[-1]
    # How the layer spreads a token: what position n gets when only token s is left of the mixed.
    x = inputs_of(model, "token_fuser_0", images)[1].reshape(2 * frames, positions, 16)
    norm = fuser.original_norm
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.epsilon)
    logits = to_numpy(fuser.token_masking(x))  # gamma is 1 and beta 0
    masks = rows(1 / (1 + np.exp(-logits))).reshape(2, frames, positions, 4)
    before = block(maps["encoder_block_0"])  # (B, T*N, T*N)
    learn = np.zeros((2, frames * 4, frames * positions))
    mask = np.zeros((2, frames * positions, frames * 4))
    for frame in range(frames):
        tokens = slice(frame * 4, frame * 4 + 4)
        places = slice(frame * positions, (frame + 1) * positions)
        learn[:, tokens, places] = rows(maps["token_learner_0"][:, frame])
        mask[:, places, tokens] = masks[:, frame]
    matrix = rows(np.abs(kernel.T))
    mix = np.kron(np.eye(frames), matrix) if mixing == "frame" else matrix
    fused = mask @ mix @ block(maps["encoder_block_1"]) @ learn @ before
    expected = ((fused + before) / 2).mean(1)
    rollout = tk.attention_rollout(model, images)
    assert np.allclose(rollout.reshape(2, -1), expected, atol=1e-5)


@pytest.mark.every_backend
@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize("protected", [0, 1, 2])
def test_the_weights_of_a_merging_are_those_of_its_means(sizes: bool, protected: int) -> None:
    layer, x = tk.TokenMerging(4, protected), random(2, 3, 13, 6)
    counts = np.random.default_rng(0).integers(1, 5, (2, 3, 13)) if sizes else None
    weights = to_numpy(layer.merging_weights(x, counts))
    assert weights.shape == (2, 3, 9, 13) and weights.min() >= 0
    assert np.allclose(weights.sum(-1), 1, atol=1e-6)
    assert np.allclose(weights @ x, to_numpy(layer(x, sizes=counts)), atol=1e-5)


@pytest.mark.parametrize("name", ["vit_ti8_d3_tl8at1_merge", "vivit_ti16x2_d3_tl4at1_merge"])
def test_token_merging(name: str) -> None:
    model = small_model(name)
    images = random_inputs(model)
    maps = maps_of(model, images)
    expected = block(maps["encoder_block_0"])
    frames = 1 if name.startswith("vit_") else 2
    for index in (1, 2):
        x, *sizes = inputs_of(model, f"token_merging_{index - 1}", images)
        merging = model.get_layer(f"token_merging_{index - 1}")
        weights = to_numpy(merging.merging_weights(x, *sizes))
        parts = expected.reshape(2, frames, weights.shape[-1], -1)
        merged = (weights.reshape(2, frames, *weights.shape[-2:]) @ parts).reshape(
            2, -1, parts.shape[-1]
        )
        expected = block(maps[f"encoder_block_{index}"]) @ merged
    rollout = tk.attention_rollout(model, images)
    assert np.allclose(rollout.reshape(2, -1), expected.mean(1), atol=1e-5)


def test_pooling_to_a_smaller_grid() -> None:
    model = small_model("vit_ti8_d2_pool2at1")
    images = random_inputs(model)
    maps = maps_of(model, images)
    pool = np.zeros((2, 2, 4, 6))
    for row in range(2):
        for column in range(2):
            pool[row, column, row * 2 : row * 2 + 2, column * 3 : column * 3 + 3] = 1 / 6
    expected = block(maps["encoder_block_1"]) @ pool.reshape(4, 24)
    expected = (expected @ block(maps["encoder_block_0"])).mean(1)
    rollout = tk.attention_rollout(model, images)
    assert np.allclose(rollout.reshape(2, 24), expected, atol=1e-5)


def test_inserted_nested_and_in_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small_model("vit_ti8_d3", classifier="token")
    keras.config.set_dtype_policy("float32")
    model = tk.insert_token_learner(model, "encoder_block_1", tk.TokenLearnerV11(6, name="new"))
    images = random(2, 32, 48, 3)
    maps = maps_of(model, images)
    learned = with_class_token(rows(maps["new"].reshape(2, 6, 24)))
    expected = block(maps["encoder_block_1"]) @ learned @ block(maps["encoder_block_0"])
    expected = (block(maps["encoder_block_2"]) @ expected)[:, 0, 1:]
    outer = keras.Sequential([keras.Input((32, 48, 3)), model, layers.Dense(2)])
    for each in (model, outer):
        rollout = tk.attention_rollout(each, images)
        assert np.allclose(rollout.reshape(2, 24), rows(expected), atol=1e-5)


@pytest.mark.every_backend
def test_a_transformer_of_keras_own_layers() -> None:
    inputs = keras.Input((8, 12, 3))
    x = layers.Conv2D(8, 4, 4)(inputs)
    x = layers.Reshape((-1, 8))(x)
    normal = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 4, name="attention")(normal, normal)
    x = layers.Add()([x, layers.Dense(8, "gelu")(layers.LayerNormalization()(x))])
    x = tk.TokenLearnerV11(3, name="learner")(x)
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))
    images = random_inputs(model)
    maps = maps_of(model, images)
    expected = (rows(maps["learner"]) @ block(maps["attention"])).mean(1)
    rollout = tk.attention_rollout(model, images)
    assert np.allclose(rollout, expected.reshape(2, 2, 3), atol=1e-5)


def test_what_cannot_be_followed_is_said() -> None:
    videos = random(1, 4, 32, 32, 3)
    model = tk.create_model("x2plus1d_m_tokenlearner", num_frames=4, image_size=32)
    with pytest.raises(ValueError, match="goes back to the patches of a PatchEmbedding"):
        tk.attention_rollout(model, videos)
    inputs = keras.Input((32, 48, 3))
    patches = layers.Reshape((-1, 16))(PatchEmbedding(16, (8, 8))(inputs))
    unknown = keras.Model(inputs, layers.Conv1D(16, 3, name="mixer")(patches))
    images = random(1, 32, 48, 3)
    with pytest.raises(ValueError, match=r"cannot go through layer 'mixer' of type Conv1D.*24, 16"):
        tk.attention_rollout(unknown, images)
    two = [layers.Flatten()(PatchEmbedding(4, (8, 8))(inputs))]
    with pytest.raises(ValueError, match="cannot go through layer 'flatten"):
        tk.attention_rollout(keras.Model(inputs, two), images)
    pair = layers.Concatenate(axis=1)(
        [layers.Reshape((-1, 4))(PatchEmbedding(4, (size, size))(inputs)) for size in (8, 16)]
    )
    with pytest.raises(ValueError, match="follows one grid of patches"):
        tk.attention_rollout(keras.Model(inputs, pair), images)
    with pytest.raises(ValueError, match=r"attention_rollout expects a batch.*image\[None\]"):
        tk.attention_rollout(small_model("vit_ti8_d1"), images[0])

"""Tokens of a whole clip, `per_frame=False`: against tokens of one long frame, and formulas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import waken

pytestmark = pytest.mark.every_backend

Make = Callable[..., keras.layers.Layer]
#: Whose softmax runs over all positions, so that a clip is a long frame.
SOFTMAXES: dict[str, Make] = {
    "v1.1": lambda **kwargs: tk.TokenLearnerV11(4, bottleneck_dim=8, **kwargs),
    "mha, folded": lambda **kwargs: tk.TokenLearnerMHA(3, num_heads=2, **kwargs),
    "mha, plain": lambda **kwargs: tk.TokenLearnerMHA(4, num_heads=2, **kwargs),
    "patch merger": lambda **kwargs: tk.PatchMerger(4, **kwargs),
}
SIGMOIDS: dict[str, Make] = {
    "v1.0": lambda **kwargs: tk.TokenLearner(4, **kwargs),
    "v1.0 mean": lambda **kwargs: tk.TokenLearner(4, pooling="mean", **kwargs),
}
TOKENIZERS = {**SOFTMAXES, **SIGMOIDS}
#: The grid of the positions for inputs of every rank, a sequence being one frame.
SHAPES = {(2, 9, 6): (9,), (2, 3, 4, 6): (3, 4), (2, 3, 2, 5, 6): (3, 2, 5)}
CLIP = (2, 3, 2, 5, 6)

every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def _pair(name: str, shape: tuple[int, ...], **kwargs: Any) -> tuple[Any, Any]:
    """Returns a layer of whole clips and one of single frames with the same weights."""
    clip, frame = TOKENIZERS[name](per_frame=False, **kwargs), TOKENIZERS[name](**kwargs)
    clip.build(shape)
    frame.build(shape)
    waken(clip)
    frame.set_weights(clip.get_weights())
    return clip, frame


def _both(layer: Any, x: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    tokens, maps = layer(x, return_attention_maps=True, **kwargs)
    return to_numpy(tokens), to_numpy(maps)


@every_tokenizer
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_tokens_and_maps(name: str, shape: tuple[int, ...]) -> None:
    layer, _ = _pair(name, shape)
    count, grid = layer.num_tokens, SHAPES[shape]
    tokens, maps = _both(layer, random(*shape))
    assert tokens.shape == (2, count, 6) == layer.compute_output_shape(shape)
    assert maps.shape == (2, count, *grid)
    assert np.array_equal(to_numpy(layer(random(*shape))), tokens)
    symbolic = layer(keras.Input(shape[1:]), return_attention_maps=True)
    assert [tuple(each.shape) for each in symbolic] == [(None, count, 6), (None, count, *grid)]


@pytest.mark.parametrize("name", SOFTMAXES)
def test_a_clip_is_a_long_frame(name: str) -> None:
    clip, frame = _pair(name, CLIP)
    x = random(*CLIP)
    tokens, maps = _both(clip, x)
    expected_tokens, expected_maps = _both(frame, x.reshape(2, 30, 6))
    assert np.allclose(tokens, expected_tokens, atol=1e-6)
    assert np.allclose(maps.reshape(2, -1, 30), expected_maps, atol=1e-6)
    assert np.allclose(maps.sum((2, 3, 4)), 1, atol=1e-5)
    for again in (x.reshape(2, 3, 10, 6), x.reshape(2, 30, 6)):
        assert np.allclose(to_numpy(clip(again)), tokens, atol=1e-6)


@pytest.mark.parametrize("name", SOFTMAXES)
def test_gradients_are_those_of_a_long_frame(name: str, gradients: Any) -> None:
    clip, frame = _pair(name, CLIP)
    x, cotangent = random(*CLIP), random(2, clip.num_tokens, 6, seed=1)
    found = gradients(clip, [x], cotangent, clip.trainable_variables)
    expected = gradients(frame, [x.reshape(2, 30, 6)], cotangent, frame.trainable_variables)
    largest = max(np.abs(gradient).max() for gradient in expected[1])
    assert np.allclose(found[0][0].reshape(2, 30, 6), expected[0][0], atol=1e-5)
    for mine, other in zip(found[1], expected[1], strict=True):
        assert np.abs(mine - other).max() < 1e-5 * largest


@pytest.mark.parametrize("name", SIGMOIDS)
def test_maps_of_convolutions_are_those_of_each_frame(name: str, gradients: Any) -> None:
    """Only the sums run over all frames."""
    clip, frame = _pair(name, CLIP)
    x, cotangent = random(*CLIP), random(2, 4, 6, seed=1)
    tokens, maps = _both(clip, x)
    frame_tokens, frame_maps = _both(frame, x)
    pool = np.mean if "mean" in name else np.sum
    assert np.allclose(maps, frame_maps.swapaxes(1, 2), atol=1e-6)
    assert np.allclose(tokens, pool(frame_tokens, axis=1), atol=1e-5)
    spread = np.repeat(cotangent[:, None], 3, axis=1) / (3 if "mean" in name else 1)
    found = gradients(clip, [x], cotangent, clip.trainable_variables)
    expected = gradients(frame, [x], spread, frame.trainable_variables)
    for mine, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert np.abs(mine - other).max() < 1e-5 * max(1, np.abs(other).max())


@pytest.mark.parametrize("name", [*SIGMOIDS, "v1.1"])
def test_tokens_are_the_sums_of_raw_values_under_the_maps(name: str) -> None:
    layer, _ = _pair(name, CLIP)
    x = random(*CLIP)
    tokens, maps = _both(layer, x)
    expected = np.einsum("bsthw,bthwc->bsc", maps, x)
    assert np.allclose(tokens, expected / (30 if "mean" in name else 1), atol=1e-5)


@every_tokenizer
def test_a_sequence_is_a_frame(name: str) -> None:
    clip, frame = _pair(name, (2, 9, 6))
    x = random(2, 9, 6)
    for mine, expected in zip(_both(clip, x), _both(frame, x), strict=True):
        assert np.allclose(mine, expected, atol=1e-6)


@every_tokenizer
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) > 3])
@pytest.mark.parametrize("garbage", [7.0, np.nan, np.inf])
@pytest.mark.parametrize("whole_frames", [False, True])
def test_masked_values_do_not_matter(
    name: str, shape: tuple[int, ...], garbage: float, whole_frames: bool
) -> None:
    layer, x = TOKENIZERS[name](per_frame=False), random(*shape)
    mask = np.random.default_rng(1).random(shape[: 2 if whole_frames else -1]) < 0.6
    mask[0, 0], mask[1, 1] = True, False
    per_position = mask.reshape(*mask.shape, *[1] * (len(shape) - 1 - mask.ndim))
    per_position = np.broadcast_to(per_position, shape[:-1])
    spoiled = np.where(per_position[..., None], x, np.float32(garbage))
    clean, dirty = _both(layer, x, mask=mask), _both(layer, spoiled, mask=mask)
    for one, other in zip(clean, dirty, strict=True):
        assert np.all(np.isfinite(one)) and np.array_equal(one, other)
    assert np.all(clean[1][np.broadcast_to(~per_position[:, None], clean[1].shape)] == 0)
    if whole_frames:
        for one, other in zip(clean, _both(layer, x, mask=per_position), strict=True):
            assert np.array_equal(one, other)


@every_tokenizer
def test_padded_frames_are_as_if_they_were_not_there(name: str) -> None:
    layer, x = TOKENIZERS[name](per_frame=False), random(*CLIP)
    mask = np.array([[True, False, True]] * 2)
    tokens, maps = _both(layer, x, mask=mask)
    short_tokens, short_maps = _both(layer, x[:, ::2])
    assert np.allclose(tokens, short_tokens, atol=1e-6)
    assert np.allclose(maps[:, :, ::2], short_maps, atol=1e-6)


@every_tokenizer
def test_a_clip_without_anything_real_has_zero_tokens(name: str, gradients: Any) -> None:
    layer = TOKENIZERS[name](per_frame=False)
    mask = np.array([[False] * 3, [True, False, False]])
    tokens, maps = _both(layer, random(*CLIP), mask=mask)
    assert not np.any(tokens[0]) and not np.any(maps[0]) and np.any(tokens[1])
    inputs = keras.Input(CLIP[1:])
    model = keras.Model(inputs, layer(inputs, mask=keras.ops.convert_to_tensor(mask)))
    (by_input,), by_weight = gradients(
        model, [random(*CLIP)], random(*tokens.shape), model.trainable_variables
    )
    assert not np.any(by_input[0]) and not np.any(by_input[1, 1:]) and np.any(by_input[1, 0])
    assert all(np.all(np.isfinite(gradient)) for gradient in by_weight)


def test_a_masked_mean_divides_by_the_real_positions_of_all_frames() -> None:
    layers = [tk.TokenLearner(4, pooling, per_frame=False) for pooling in ("sum", "mean")]
    mask = np.zeros(CLIP[:-1], bool)
    mask[:, 0, 1, :3] = mask[:, 2, 0, 4] = True
    x = random(*CLIP)
    layers[1].build(CLIP)
    layers[0].build(CLIP)
    layers[0].set_weights(layers[1].get_weights())
    summed, averaged = (to_numpy(layer(x, mask=mask)) for layer in layers)
    assert np.allclose(4 * averaged, summed, atol=1e-6)


@every_tokenizer
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_an_empty_batch_gives_no_tokens(name: str, policy: str, gradients: Any) -> None:
    layer = TOKENIZERS[name](per_frame=False, dtype=policy)
    x = np.zeros((0, *CLIP[1:]), "float32")
    layer.build(x.shape)
    for mask in (None, np.zeros((0, 3), bool), np.zeros(x.shape[:-1], bool)):
        tokens, maps = _both(layer, x, mask=mask)
        assert tokens.shape == (0, layer.num_tokens, 6)
        assert maps.shape == (0, layer.num_tokens, 3, 2, 5)
    _, by_weight = gradients(layer, [x], tokens, layer.trainable_variables)
    assert not any(np.any(gradient) for gradient in by_weight)


@every_tokenizer
def test_unknown_time_and_size(name: str) -> None:
    layer, inputs = TOKENIZERS[name](per_frame=False), keras.Input((None, None, None, 6))
    mask = keras.Input((None,), dtype="bool")
    tokens, maps = layer(inputs, mask=mask, return_attention_maps=True)
    assert tokens.shape[1:] == (layer.num_tokens, 6)
    assert maps.shape[1:] == (layer.num_tokens, None, None, None)
    model = keras.Model([inputs, mask], [tokens, maps])
    for time, height, width in ((2, 3, 4), (1, 2, 2)):
        x, real = random(2, time, height, width, 6), np.ones((2, time), bool)
        real[1, 1:] = False
        # `predict` compiles, with sizes that are unknown inside.
        found = model.predict([x, real], verbose=0)
        for one, other in zip(found, _both(layer, x, mask=real), strict=True):
            assert np.allclose(one, other, atol=1e-5)


@every_tokenizer
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(name: str, policy: str) -> None:
    full, low = TOKENIZERS[name](per_frame=False), TOKENIZERS[name](per_frame=False, dtype=policy)
    # 4,096 positions: a float16 sum of their weights would lose all digits.
    x = random(1, 16, 16, 16, 6) + 3
    tokens, maps = _both(full, x)
    low.build(x.shape)
    low.set_weights(full.get_weights())
    low_tokens, low_maps = low(x, return_attention_maps=True)
    assert keras.backend.standardize_dtype(low_tokens.dtype) == low.compute_dtype
    assert keras.backend.standardize_dtype(low_maps.dtype) == "float32"
    assert np.allclose(to_numpy(low_maps), maps, rtol=0.2, atol=0.05)
    scale = np.abs(tokens).max()
    assert np.abs(to_numpy(low_tokens) - tokens).max() < 0.05 * scale


@every_tokenizer
def test_configurations_and_files(name: str, tmp_path: Path) -> None:
    layer = TOKENIZERS[name](per_frame=False, name="clips")
    config = layer.get_config()
    assert config["per_frame"] is False
    assert type(layer).from_config(config).get_config() == config
    # As written before there was the argument.
    del config["per_frame"]
    assert type(layer).from_config(config).per_frame
    inputs = keras.Input(CLIP[1:])
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(to_numpy(loaded(random(*CLIP))), to_numpy(model(random(*CLIP))))


@every_tokenizer
def test_what_is_refused(name: str) -> None:
    for value in (None, 1, "no"):
        with pytest.raises(ValueError, match="`per_frame` must be True or False"):
            TOKENIZERS[name](per_frame=value)
    layer = TOKENIZERS[name](per_frame=False)
    with pytest.raises(ValueError, match=r"4 \(batch, time, positions, channels\) or 5 .* rank 2"):
        layer(np.ones((2, 6), "float32"))
    x = random(*CLIP)
    for shape in ((2, 3, 10), (2, 2), (3, 3), (2, 3, 2, 5, 1)):
        expected = r"\(2, 3, 2, 5\) or, for whole frames, \(2, 3\)"
        with pytest.raises(ValueError, match=f"channels, {expected}, True where"):
            layer(x, mask=np.ones(shape, bool))
    # Tokens of each frame take no mask of whole frames.
    with pytest.raises(ValueError, match=r"without its channels, \(2, 3, 2, 5\), True"):
        TOKENIZERS[name]()(x, mask=np.ones((2, 3), bool))


def test_v10_needs_the_grid_of_positions() -> None:
    layer = tk.TokenLearner(4, grid_size=(2, 5), per_frame=False)
    x = random(*CLIP)
    assert np.allclose(to_numpy(layer(x.reshape(2, 3, 10, 6))), to_numpy(layer(x)), atol=1e-6)
    with pytest.raises(ValueError, match="10 positions. Received a sequence of 9"):
        layer(random(2, 3, 9, 6))
    square = tk.TokenLearner(4, per_frame=False)
    assert square(random(2, 3, 9, 6)).shape == (2, 4, 6)
    message = r"sequence of 10 positions.*grid_size=\(height, width\).*\(batch, time, height"
    with pytest.raises(ValueError, match=message):
        square(random(2, 3, 10, 6))


@pytest.mark.parametrize("mixing", ["frame", "video"])
def test_a_fuser_puts_the_tokens_of_a_clip_onto_all_its_positions(mixing: str) -> None:
    x, tokens = random(*CLIP), random(2, 4, 6, seed=1)
    fuser = tk.TokenFuser(8, mixing=mixing)
    fused = fuser(tokens, x)
    assert tuple(fused.shape) == CLIP and not np.any(to_numpy(fused))
    waken(fuser)
    fused = to_numpy(fuser(tokens, x))
    assert np.any(fused)
    for shape in ((2, 3, 10, 6), (2, 30, 6)):
        again = to_numpy(fuser(tokens, x.reshape(shape)))
        assert again.shape == shape and np.allclose(again.reshape(CLIP), fused, atol=1e-6)

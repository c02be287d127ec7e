"""Promises that hold for every layer: shapes, masks, precision, serialisation, errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.encoder_block import StochasticDepth
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA

pytestmark = pytest.mark.every_backend

WEIGHTED_SUMS = {
    "v1.0": lambda **kwargs: tk.TokenLearner(4, **kwargs),
    "v1.0 mean": lambda **kwargs: tk.TokenLearner(4, pooling="mean", **kwargs),
    "v1.1": lambda **kwargs: tk.TokenLearnerV11(4, bottleneck_dim=8, **kwargs),
}
TOKENIZERS = {
    **WEIGHTED_SUMS,
    "mha": lambda **kwargs: TokenLearnerMHA(4, num_heads=2, **kwargs),
    "patch merger": lambda **kwargs: tk.PatchMerger(4, **kwargs),
}
SHAPES = {(2, 9, 6): (9,), (2, 3, 5, 6): (3, 5), (2, 3, 4, 5, 6): (4, 5)}


@pytest.fixture(params=TOKENIZERS)
def make(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_tokens_and_maps(make: Any, shape: tuple[int, ...]) -> None:
    layer, grid = make(), SHAPES[shape]
    leading = shape[: -1 - len(grid)]
    tokens, maps = layer(random(*shape), return_attention_maps=True)
    assert tuple(tokens.shape) == (*leading, 4, 6) == layer.compute_output_shape(shape)
    assert tuple(maps.shape) == (*leading, 4, *grid)
    assert np.allclose(to_numpy(layer(random(*shape))), to_numpy(tokens))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_batch_gives_no_tokens(
    make: Any, shape: tuple[int, ...], policy: str, gradients: Any
) -> None:
    layer, grid = make(dtype=policy), SHAPES[shape]
    layer.build(shape)
    x, leading = np.zeros((0, *shape[1:]), "float32"), (0, *shape[1 : -1 - len(grid)])
    for mask in (None, np.zeros(x.shape[:-1], bool)):
        tokens, maps = layer(x, mask=mask, return_attention_maps=True)
        assert tuple(tokens.shape) == (*leading, 4, 6) and tuple(maps.shape) == (*leading, 4, *grid)
    by_input, by_weight = gradients(
        layer, [x], np.zeros((*leading, 4, 6), "float32"), layer.trainable_variables
    )
    assert by_input[0].shape == x.shape
    assert not any(np.any(gradient) for gradient in by_weight)


@pytest.mark.parametrize("make", WEIGHTED_SUMS, indirect=True)
@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_are_the_sums_of_raw_values_under_the_maps(
    make: Any, shape: tuple[int, ...]
) -> None:
    layer, x = make(), random(*shape)
    tokens, maps = (to_numpy(y) for y in layer(x, return_attention_maps=True))
    frames = x.shape[: -1 - len(SHAPES[shape])]
    flat_x = x.reshape(*frames, -1, 6)
    flat_maps = maps.reshape(*frames, 4, -1)
    if isinstance(layer, tk.TokenLearnerV11):
        assert np.allclose(flat_maps.sum(-1), 1, atol=1e-6)
    else:
        assert flat_maps.min() > 0 and flat_maps.max() < 1
    expected = flat_maps @ flat_x
    if getattr(layer, "pooling", "sum") == "mean":
        expected = expected / flat_x.shape[-2]
    assert np.allclose(tokens, expected, atol=1e-5)


def test_a_video_is_tokenized_frame_by_frame(make: Any) -> None:
    layer, video = make(), random(2, 3, 4, 5, 6)
    together = to_numpy(layer(video))
    for time in range(3):
        assert np.allclose(together[:, time], to_numpy(layer(video[:, time])), atol=1e-5)


def test_functional_model_with_unknown_sizes(make: Any) -> None:
    inputs = keras.Input((None, None, 6))
    tokens, maps = make()(inputs, return_attention_maps=True)
    assert tokens.shape == (None, 4, 6) and maps.shape == (None, 4, None, None)
    model = keras.Model(inputs, [tokens, maps])
    for height, width in ((3, 5), (4, 4)):
        x = random(2, height, width, 6)
        # `predict` compiles, so sizes are unknown inside; a batch of one size each.
        predicted = model.predict(x, verbose=0)
        for received, expected in zip(predicted, model(x), strict=True):
            assert np.allclose(received, to_numpy(expected), atol=1e-5)
        assert predicted[1].shape == (2, 4, height, width)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("garbage", [7.0, np.nan, np.inf])
def test_masked_values_do_not_matter(make: Any, shape: tuple[int, ...], garbage: float) -> None:
    layer, x = make(), random(*shape)
    mask = np.random.default_rng(1).random(shape[:-1]) < 0.6
    spoiled = np.where(mask[..., None], x, np.float32(garbage))
    for clean, dirty in zip(
        layer(x, mask=mask, return_attention_maps=True),
        layer(spoiled, mask=mask, return_attention_maps=True),
        strict=True,
    ):
        assert np.array_equal(to_numpy(clean), to_numpy(dirty))
    maps = to_numpy(layer(x, mask=mask, return_attention_maps=True)[1])
    tokens_axis = maps.ndim - 1 - len(SHAPES[shape])
    hidden = np.expand_dims(~mask, tokens_axis)
    assert np.all(maps[np.broadcast_to(hidden, maps.shape)] == 0)


def test_nothing_real_gives_zeros(make: Any) -> None:
    mask = np.zeros((2, 3, 5), bool)
    mask[1] = True
    layer = make()
    tokens = to_numpy(layer(random(2, 3, 5, 6), mask=mask))
    assert np.all(tokens[0] == 0) and np.all(np.isfinite(tokens)) and np.any(tokens[1] != 0)


def test_a_full_mask_changes_nothing(make: Any) -> None:
    layer, x = make(), random(2, 4, 4, 6)
    plain = to_numpy(layer(x))
    assert np.allclose(plain, to_numpy(layer(x, mask=np.ones((2, 4, 4), bool))), atol=1e-6)


def test_a_masked_mean_divides_by_the_real_count() -> None:
    summed, averaged = tk.TokenLearner(4), tk.TokenLearner(4, pooling="mean")
    x, mask = random(1, 2, 3, 6), np.array([[[1, 1, 0], [0, 1, 0]]], bool)
    summed(x), averaged(x)
    averaged.set_weights(summed.get_weights())
    assert np.allclose(to_numpy(averaged(x, mask=mask)) * 3, to_numpy(summed(x, mask=mask)))


@pytest.mark.parametrize("make", ["v1.1", "mha", "patch merger"], indirect=True)
def test_a_sequence_with_padding_equals_the_shorter_one(make: Any) -> None:
    layer, x = make(), random(2, 7, 6)
    padded = np.concatenate([x, np.full((2, 3, 6), 9, "float32")], axis=1)
    mask = np.arange(10)[None].repeat(2, axis=0) < 7
    assert np.allclose(to_numpy(layer(padded, mask=mask)), to_numpy(layer(x)), atol=1e-6)


def test_masks_arrive_from_keras_and_end_here(make: Any) -> None:
    x = random(2, 9, 6)
    x[:, 4:6] = 0
    inputs = keras.Input((9, 6))
    layer = make()
    tokens = layer(keras.layers.Masking()(inputs))
    assert getattr(tokens, "_keras_mask", None) is None
    expected = layer(x, mask=np.any(x != 0, axis=-1))
    assert np.allclose(to_numpy(keras.Model(inputs, tokens)(x)), to_numpy(expected), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_precision(make: Any, policy: str) -> None:
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float64 only with jax_enable_x64")
    full, low = make(), make(dtype=policy)
    # 4,096 positions with mean 8: a float16 sum would overflow to infinity.
    x = random(1, 64, 64, 6) + 8
    expected, expected_maps = (to_numpy(y) for y in full(x, return_attention_maps=True))
    low.build(x.shape)
    low.set_weights(full.get_weights())
    tokens, maps = low(x, return_attention_maps=True)
    half = policy != "float64"
    assert keras.backend.standardize_dtype(maps.dtype) == ("float32" if half else "float64")
    assert keras.backend.standardize_dtype(tokens.dtype) == low.compute_dtype
    tokens = to_numpy(tokens)
    if np.abs(expected).max() < 60000 or policy != "mixed_float16":
        assert np.allclose(tokens, expected, rtol=0.1, atol=0.1)
    if not isinstance(low, tk.TokenLearner):
        assert np.allclose(to_numpy(maps).sum(axis=(2, 3)), 1, atol=1e-5)
    assert np.allclose(to_numpy(maps), expected_maps, rtol=0.2, atol=0.05)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("layer", [*WEIGHTED_SUMS, "fuser"])
def test_gradients_are_finite_wherever_those_of_a_layer_norm_are(
    layer: str, policy: str, gradients: Any
) -> None:
    # That of PyTorch squares its input in float32.
    size = np.float32(1e10 if keras.backend.backend() == "torch" else 1e25)
    inputs = [size * random(2, 3, 3, 6)]
    if layer == "fuser":
        made, shape = tk.TokenFuser(dtype=policy), (2, 3, 3, 6)
        inputs.insert(0, size * random(2, 4, 6, seed=1))
    else:
        made, shape = WEIGHTED_SUMS[layer](dtype=policy), (2, 4, 6)
    made.build(*(x.shape for x in inputs))
    for found in gradients(made, inputs, random(*shape) / size, made.trainable_variables):
        assert all(np.all(np.isfinite(gradient)) for gradient in found)


@pytest.mark.parametrize("make", ["v1.1", "mha"], indirect=True)
def test_dropout_only_in_training(make: Any) -> None:
    layer, x = make(dropout=0.5), random(2, 4, 4, 6)
    assert np.array_equal(to_numpy(layer(x)), to_numpy(layer(x)))
    once, again = to_numpy(layer(x, training=True)), to_numpy(layer(x, training=True))
    assert not np.allclose(once, again)


ALL_LAYERS = {
    "v1.0": lambda: tk.TokenLearner(4, pooling="mean", grid_size=(2, 8), name="a"),
    "v1.1": lambda: tk.TokenLearnerV11(4, 8, dropout=0.1, name="b"),
    "block": lambda: EncoderBlock(2, 12, 0.1, 0.2, 0.3, name="c"),
    "depth": lambda: StochasticDepth(0.2, seed=4, name="d"),
}


@pytest.mark.parametrize("name", ALL_LAYERS)
def test_config_round_trip_and_saving(name: str, tmp_path: Path) -> None:
    layer = ALL_LAYERS[name]()
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config
    inputs = keras.Input((16, 6))
    model = keras.Model(inputs, layer(inputs))
    x = random(2, 16, 6)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert np.array_equal(to_numpy(model(x)), to_numpy(loaded(x)))
    registered = keras.saving.get_registered_name(type(layer))
    assert registered == f"tokenlearner_keras>{type(layer).__name__}"


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean() -> None:
    x = np.ones((4000, 2, 3), "float32")
    y = to_numpy(StochasticDepth(0.25, seed=1)(x, training=True))
    assert np.allclose(y, y[:, :1, :1])
    assert set(np.unique(np.round(y, 4))) == {0.0, np.float32(1.3333)}
    assert abs(y.mean() - 1) < 0.05
    assert np.array_equal(to_numpy(StochasticDepth(0.25)(x)), x)


@pytest.mark.parametrize("number", [0, -1, 2.5, "8", True, None])
def test_num_tokens_must_be_a_positive_integer(number: Any) -> None:
    for layer in (tk.TokenLearner, tk.TokenLearnerV11, TokenLearnerMHA, tk.PatchMerger):
        with pytest.raises(ValueError, match="`num_tokens` must be an integer of at least 1"):
            layer(num_tokens=number)


@pytest.mark.parametrize(
    ("make_wrong", "message"),
    [
        (lambda: tk.TokenLearner(pooling="max"), "one of 'sum', 'mean'.*'max'"),
        (lambda: tk.TokenLearner(grid_size=4), "two integers"),
        (lambda: tk.TokenLearnerV11(bottleneck_dim=0), "bottleneck_dim"),
        (lambda: tk.TokenLearnerV11(dropout=1.0), "at least 0 and below 1"),
        (lambda: tk.TokenFuser(dropout=-0.1), "at least 0 and below 1"),
        (lambda: tk.TokenFuser(mixing="all"), "one of 'frame', 'video'"),
        (lambda: TokenLearnerMHA(num_heads=0), "`num_heads` must be an integer"),
        (lambda: TokenLearnerMHA(dropout=1), "at least 0 and below 1"),
        (
            lambda: TokenLearnerMHA(num_heads=4)(np.ones((1, 2, 6), "float32")),
            "must divide the channels. Received num_heads=4 for 6 channels",
        ),
        (lambda: EncoderBlock(5, 8)(np.ones((1, 2, 6), "float32")), "must divide"),
    ],
)
def test_wrong_arguments(make_wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_wrong()


def test_wrong_rank(make: Any) -> None:
    for shape in ((2, 6), (1, 2, 2, 2, 2, 6)):
        with pytest.raises(ValueError, match=r"rank 3 .* rank " + str(len(shape))):
            make()(np.ones(shape, "float32"))


def test_wrong_channels(make: Any) -> None:
    layer = make()
    layer(np.ones((1, 4, 4, 6), "float32"))
    with pytest.raises(ValueError, match="built for inputs with 6 channels. Received 5"):
        layer(np.ones((1, 4, 4, 5), "float32"))
    with pytest.raises(ValueError, match="number of channels"):
        make()(keras.Input((4, 4, None)))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_refused(make: Any, dtype: str) -> None:
    """Whether Keras, the backend, or neither would have cast them."""
    for x in (np.ones((1, 4, 4, 6), dtype), keras.Input((4, 4, 6), dtype=dtype)):
        with pytest.raises(ValueError, match=f"expects floating-point inputs. Received {dtype}"):
            make()(x)
    tokens, original = np.ones((1, 2, 6), "float32"), np.ones((1, 4, 4, 6), "float32")
    for wrong in ((tokens.astype(dtype), original), (tokens, original.astype(dtype))):
        with pytest.raises(ValueError, match=f"TokenFuser .* Received {dtype}"):
            tk.TokenFuser()(*wrong)
        with pytest.raises(ValueError, match=f"TokenFuser .* Received {dtype}"):
            tk.TokenFuser()(*(keras.Input(x.shape[1:], dtype=str(x.dtype)) for x in wrong))


@pytest.fixture
def _channels_first() -> Iterator[None]:
    keras.backend.set_image_data_format("channels_first")
    yield
    keras.backend.set_image_data_format("channels_last")


@pytest.mark.usefixtures("_channels_first")
def test_channels_first_is_refused(make: Any) -> None:
    message = r"channels first. Call keras.backend.set_image_data_format\('channels_last'\)"
    for shape in ((1, 6, 4, 4), (1, 3, 6, 4, 4)):
        x = np.ones(shape, "float32")
        for inputs in (x, keras.Input(shape[1:])):
            with pytest.raises(ValueError, match=message):
                make()(inputs)
        with pytest.raises(ValueError, match=message):
            tk.TokenFuser()(x[:, :2, :, 0], x)
    for name in ("vit_ti16", "x2plus1d_m"):
        with pytest.raises(ValueError, match=message):
            tk.create_model(name)
    assert tuple(make()(np.ones((1, 4, 6), "float32")).shape) == (1, 4, 6)  # has no format


def test_wrong_mask(make: Any) -> None:
    with pytest.raises(ValueError, match=r"mask with the input's shape .*\(1, 4, 4\)"):
        make()(np.ones((1, 4, 4, 6), "float32"), mask=np.ones((1, 16), bool))


@pytest.mark.parametrize("shape", [(1, 8, 6), (None, 6)])
def test_v10_cannot_guess_the_grid(shape: tuple[int | None, ...]) -> None:
    x = keras.Input(shape) if None in shape else np.ones(shape, "float32")
    with pytest.raises(ValueError, match=r"grid_size=\(height, width\).*\(batch, height"):
        tk.TokenLearner(4)(x)


def test_v10_takes_the_grid_it_is_told() -> None:
    layer, x = tk.TokenLearner(4, grid_size=(2, 4)), random(2, 2, 4, 6)
    sequence = layer(x.reshape(2, 8, 6))
    assert np.allclose(to_numpy(sequence), to_numpy(layer(x)), atol=1e-6)
    with pytest.raises(ValueError, match=r"8 positions. Received a sequence of 9"):
        layer(np.ones((1, 9, 6), "float32"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sizes unknown at run time")
def test_sizes_known_only_at_run_time_are_checked_then() -> None:
    import tensorflow as tf

    any_size = tf.TensorSpec((None, None, 6))
    gridded = tk.TokenLearner(4, grid_size=(4, 4))
    gridded.build((None, 16, 6))
    call = tf.function(gridded, input_signature=[any_size])
    assert call(np.ones((2, 16, 6), "float32")).shape == (2, 4, 6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(np.ones((1, 32, 6), "float32"))  # two grids are not two examples
    square = tk.TokenLearner(4)
    square.build((None, 16, 6))
    with pytest.raises(ValueError, match=r"unknown positions.*grid_size=\(height, width\)"):
        tf.function(square, input_signature=[any_size])(np.ones((2, 16, 6), "float32"))
    fuser = tk.TokenFuser()
    fuser.build((None, 4, 6), (None, 9, 6))
    fuse = tf.function(
        fuser, input_signature=[tf.TensorSpec((None, 4, 6)), tf.TensorSpec((None, 9, 6))]
    )
    with pytest.raises(tf.errors.InvalidArgumentError):
        fuse(np.ones((2, 4, 6), "float32"), np.ones((4, 9, 6), "float32"))


def test_a_mask_may_be_a_nested_list(make: Any) -> None:
    layer, x = make(), random(1, 4, 6)
    rows = [[True, True, False, True]]
    assert np.array_equal(to_numpy(layer(x, mask=rows)), to_numpy(layer(x, mask=np.array(rows))))

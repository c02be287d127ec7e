"""TokenLearnerMHA against its formulas in NumPy, float64."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tokenlearner_keras.cost import count_macs
from tokenlearner_keras.cost import model_cost
from tokenlearner_keras.introspection import attention_maps
from tokenlearner_keras.layer_costs import SOFTMAX_OPERATIONS
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.weights.reference import load_reference_params
from tokenlearner_keras.weights.reference import reference_parameters

pytestmark = pytest.mark.every_backend

TOKENS, CHANNELS, HEADS = 3, 6, 2
DIM = CHANNELS // HEADS
# The reference's names and shapes.
SHAPES = {
    "tokens": (1, TOKENS, CHANNELS),
    **{f"attn/{name}/kernel": (CHANNELS, HEADS, DIM) for name in ("query", "key", "value")},
    **{f"attn/{name}/bias": (HEADS, DIM) for name in ("query", "key", "value")},
    "attn/out/kernel": (HEADS, DIM, CHANNELS),
    "attn/out/bias": (CHANNELS,),
}
Params = dict[str, np.ndarray]


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _params() -> Params:
    return {name: 0.6 * _random(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}


def _loaded(params: Params, **options: Any) -> TokenLearnerMHA:
    layer = TokenLearnerMHA(TOKENS, HEADS, **options)
    layer.build((None, None, CHANNELS))
    load_reference_params(layer, params)
    return layer


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _expected(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, S, C) and maps (B, S, N) of x (B, N, C), one head after the other."""
    tokens = np.broadcast_to(params["attn/out/bias"], (len(x), TOKENS, CHANNELS)).copy()
    maps = np.zeros((len(x), TOKENS, x.shape[1]))
    for head in range(HEADS):
        query, key, value = (
            data @ params[f"attn/{name}/kernel"][:, head] + params[f"attn/{name}/bias"][head]
            for name, data in (("query", params["tokens"]), ("key", x), ("value", x))
        )
        weights = _softmax(query @ key.transpose(0, 2, 1) / math.sqrt(DIM))
        tokens += weights @ value @ params["attn/out/kernel"][head]
        maps += weights / HEADS
    return tokens, maps


#: With a rate of dropout the projections are not folded into queries and sums.
FORMS = pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["folded", "plain"])


@FORMS
@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 5), (2, 2, 3, 4)])
def test_tokens_and_maps_are_those_of_the_formulas(shape: tuple[int, ...], dropout: float) -> None:
    params, x = _params(), _random(*shape, CHANNELS, seed=20)
    layer = _loaded(params, dropout=dropout)
    grid = shape[1:] if len(shape) == 2 else shape[-2:]
    leading = shape[: -len(grid)]
    tokens, maps = _expected(params, x.reshape(-1, math.prod(grid), CHANNELS))
    received = layer(x.astype("float32"), return_attention_maps=True)
    received_tokens, received_maps = map(ops.convert_to_numpy, received)
    assert received_tokens.shape == (*leading, TOKENS, CHANNELS)
    assert received_maps.shape == (*leading, TOKENS, *grid)
    assert np.abs(received_tokens.reshape(tokens.shape) - tokens).max() < 1e-5
    assert np.abs(received_maps.reshape(maps.shape) - maps).max() < 1e-6
    assert np.allclose(received_maps.reshape(maps.shape).sum(-1), 1, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has no float64 by default, and Keras multiplies matrices in float32 on PyTorch",
)
def test_float64_is_computed_in_float64() -> None:
    params, x = _params(), _random(2, 7, CHANNELS, seed=20)
    # A tensor: of an array Keras makes float32 first.
    tensor = ops.convert_to_tensor(x, dtype="float64")
    tokens, maps = _loaded(params, dtype="float64")(tensor, return_attention_maps=True)
    expected_tokens, expected_maps = _expected(params, x)
    assert np.abs(ops.convert_to_numpy(tokens) - expected_tokens).max() < 1e-14
    assert np.abs(ops.convert_to_numpy(maps) - expected_maps).max() < 1e-14


@FORMS
def test_masked_positions_are_as_if_they_were_not_there(dropout: float) -> None:
    params, x = _params(), _random(2, 7, CHANNELS, seed=20)
    mask = np.array([[1, 0, 1, 1, 0, 0, 1], [1, 1, 0, 1, 0, 1, 0]], bool)
    layer = _loaded(params, dropout=dropout)
    tokens, maps = layer(x.astype("float32"), mask=mask, return_attention_maps=True)
    short = np.stack([row[real] for row, real in zip(x, mask, strict=True)])
    expected_tokens, expected_maps = _expected(params, short)
    assert np.abs(ops.convert_to_numpy(tokens) - expected_tokens).max() < 1e-5
    for row, real, expected in zip(ops.convert_to_numpy(maps), mask, expected_maps, strict=True):
        assert np.all(row[:, ~real] == 0)
        assert np.abs(row[:, real] - expected).max() < 1e-6


@FORMS
def test_gradients_are_those_of_the_formulas(gradients: Any, dropout: float) -> None:
    params, x = _params(), _random(2, 4, CHANNELS, seed=20)
    cotangent = _random(2, TOKENS, CHANNELS, seed=21)
    layer = _loaded(params, dropout=dropout)
    parameters = reference_parameters(layer)
    variables = [parameters[name].variable for name in params]
    by_input, by_variable = gradients(
        layer, [x.astype("float32")], cotangent.astype("float32"), variables
    )

    def loss() -> float:
        return float((_expected(params, x)[0] * cotangent).sum())

    received = dict(zip(["x", *params], [*by_input, *by_variable], strict=True))
    differences = {}
    for name, array in {"x": x, **params}.items():
        expected = _central_differences(loss, array)
        differences[name] = np.abs(received[name].reshape(array.shape) - expected).max()
    largest = max(np.abs(gradient).max() for gradient in received.values())
    assert max(differences.values()) < 1e-5 * largest, differences
    # A constant on all keys moves every logit of a query alike: no softmax sees it.
    assert np.abs(received["attn/key/bias"]).max() < 1e-6 * largest
    alive = [name for name in received if name != "attn/key/bias"]
    assert min(np.abs(received[name]).max() for name in alive) > 1e-3 * largest


def _central_differences(loss: Any, array: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Gradient of loss() by each entry of an array that it reads."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        value = array[index]
        array[index] = value + step
        above = loss()
        array[index] = value - step
        gradient[index] = (above - loss()) / (2 * step)
        array[index] = value
    return gradient


def test_gradients_of_a_row_without_real_positions_are_zero(gradients: Any) -> None:
    layer, x = _loaded(_params()), _random(2, 4, CHANNELS, seed=20).astype("float32")
    mask = np.array([[False] * 4, [True, True, False, True]])
    inputs = keras.Input((4, CHANNELS))
    masked = keras.Model(inputs, layer(inputs, mask=ops.convert_to_tensor(mask)))
    (by_input,), by_variable = gradients(
        masked, [x], np.ones((2, TOKENS, CHANNELS), "float32"), masked.trainable_variables
    )
    assert np.all(by_input[0] == 0) and np.all(by_input[1, 2] == 0)
    assert np.all(np.any(by_input[1, [0, 1, 3]] != 0, axis=-1))
    assert all(np.all(np.isfinite(gradient)) for gradient in by_variable)


def test_parameters_have_the_references_names_and_shapes() -> None:
    layer = TokenLearnerMHA(TOKENS, HEADS)
    layer.build((None, 5, 5, CHANNELS))
    parameters = reference_parameters(layer)
    assert {name: parameter.shape for name, parameter in parameters.items()} == SHAPES
    assert len(layer.weights) == len(SHAPES)


def test_initial_values() -> None:
    layer = TokenLearnerMHA(64, 8)
    layer.build((None, None, 256))
    for name, parameter in reference_parameters(layer).items():
        value = ops.convert_to_numpy(parameter.variable)
        if name.endswith("bias"):
            assert np.all(value == 0)
        else:
            deviation = 0.02 if name == "tokens" else 256**-0.5
            assert abs(value.std() / deviation - 1) < 0.05, name


@pytest.mark.parametrize(
    ("shape", "frames"), [((20, CHANNELS), 1), ((4, 5, CHANNELS), 1), ((7, 4, 5, CHANNELS), 7)]
)
def test_cost(shape: tuple[int, ...], frames: int) -> None:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, TokenLearnerMHA(TOKENS, HEADS)(inputs))
    n, s, c = 20, TOKENS, CHANNELS
    macs = s * c * c + 2 * n * c * c + 2 * s * n * c + s * c * c
    assert count_macs(model) == frames * macs
    assert model_cost(model).elementwise == frames * SOFTMAX_OPERATIONS * HEADS * s * n


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA's count, by TensorFlow")
@pytest.mark.parametrize(("dropout", "share"), [(0.1, (1, 1.03)), (0.0, (0.2, 0.3))])
def test_cost_is_that_of_the_compiled_graph(dropout: float, share: tuple[float, float]) -> None:
    """The count is that of the formulas; folded projections take fewer operations."""
    import tensorflow as tf

    layer = TokenLearnerMHA(4, 4, dropout)
    layer.build((1, 14, 14, 64))
    function = tf.function(layer, input_signature=[tf.TensorSpec((1, 14, 14, 64))])
    graph = function.get_concrete_function().graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    profile = tf.compat.v1.profiler.profile(graph, options=options)
    inputs = keras.Input((14, 14, 64))
    counted = count_macs(keras.Model(inputs, layer(inputs)))
    # The profile counts two operations a product and, on top, the element-wise ones.
    assert share[0] <= profile.total_float_ops / (2 * counted) < share[1]


def test_maps_of_a_model() -> None:
    inputs = keras.Input((3, 5, CHANNELS))
    layer = TokenLearnerMHA(TOKENS, HEADS, name="learner")
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    x = _random(2, 3, 5, CHANNELS).astype("float32")
    maps = attention_maps(model, x)["learner"]
    assert maps.shape == (2, TOKENS, 3, 5)
    assert np.allclose(maps.sum(axis=(2, 3)), 1, atol=1e-5)


def test_a_position_by_a_single_head_is_read_off_its_map() -> None:
    """With a sharp key the map points at one position and the token is its projection."""
    params, x = _params(), _random(1, 5, CHANNELS, seed=20)
    x[0, :, 0] = [0, 0, 1, 0, 0]
    for name in ("query", "key"):
        params[f"attn/{name}/kernel"][:] = 0
        params[f"attn/{name}/bias"][:] = 1
    params["attn/key/kernel"][0] = 100
    tokens, maps = _loaded(params)(x.astype("float32"), return_attention_maps=True)
    assert np.allclose(ops.convert_to_numpy(maps)[0], np.eye(5)[2], atol=1e-6)
    value = np.einsum("c,chd->hd", x[0, 2], params["attn/value/kernel"]) + params["attn/value/bias"]
    expected = np.einsum("hd,hdc->c", value, params["attn/out/kernel"]) + params["attn/out/bias"]
    assert np.allclose(ops.convert_to_numpy(tokens)[0], expected, atol=1e-4)

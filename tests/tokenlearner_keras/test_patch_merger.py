"""PatchMerger against its formula in NumPy, float64; what all tokenizers share is elsewhere."""

import math
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import waken
from tokenlearner_keras.cost import model_cost
from tokenlearner_keras.layer_costs import LAYER_NORM_OPERATIONS
from tokenlearner_keras.layer_costs import SOFTMAX_OPERATIONS
from tokenlearner_keras.weights.reference import reference_parameters

pytestmark = pytest.mark.every_backend

TOKENS, CHANNELS = 5, 6


def _layer(shape: tuple[int, ...], **options: Any) -> tk.PatchMerger:
    layer = tk.PatchMerger(TOKENS, **options)
    layer.build(shape)
    waken(layer)
    return layer


def _expected(layer: tk.PatchMerger, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, S, C) and maps (B, S, N) of x (B, N, C)."""
    gamma, beta, queries = (
        to_numpy(each).astype("float64")
        for each in (layer.norm.gamma, layer.norm.beta, layer.queries)
    )
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * gamma + beta
    logits = (normed @ queries).swapaxes(1, 2) / math.sqrt(CHANNELS)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    maps = weights / weights.sum(-1, keepdims=True)
    return maps @ normed, maps


@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 5), (2, 2, 3, 4)])
@pytest.mark.parametrize("per_frame", [True, False])
def test_tokens_and_maps_are_those_of_the_formula(shape: tuple[int, ...], per_frame: bool) -> None:
    x = random(*shape, CHANNELS)
    layer = _layer(x.shape, per_frame=per_frame)
    num_leading = 2 if per_frame and len(shape) == 4 else 1
    leading, grid = shape[:num_leading], shape[num_leading:]
    tokens, maps = _expected(layer, x.reshape(-1, math.prod(grid), CHANNELS).astype("float64"))
    found_tokens, found_maps = map(to_numpy, layer(x, return_attention_maps=True))
    assert found_tokens.shape == (*leading, TOKENS, CHANNELS)
    assert found_maps.shape == (*leading, TOKENS, *grid)
    assert np.abs(found_tokens.reshape(tokens.shape) - tokens).max() < 1e-5
    assert np.abs(found_maps.reshape(maps.shape) - maps).max() < 1e-6


def test_masked_positions_are_as_if_they_were_not_there() -> None:
    x = random(2, 7, CHANNELS)
    mask = np.array([[1, 0, 1, 1, 0, 0, 1], [1, 1, 0, 1, 0, 1, 0]], bool)
    layer = _layer(x.shape)
    found, maps = map(to_numpy, layer(x, mask=mask, return_attention_maps=True))
    short = np.stack([row[real] for row, real in zip(x, mask, strict=True)]).astype("float64")
    expected, expected_maps = _expected(layer, short)
    assert np.abs(found - expected).max() < 1e-5
    for row, real, expected_row in zip(maps, mask, expected_maps, strict=True):
        assert np.all(row[:, ~real] == 0)
        assert np.abs(row[:, real] - expected_row).max() < 1e-6


def test_gradients_are_those_of_the_formula(gradients: Any) -> None:
    x, cotangent = random(2, 4, CHANNELS), random(2, TOKENS, CHANNELS, seed=1)
    layer = _layer(x.shape)
    variables = [layer.queries, layer.norm.gamma, layer.norm.beta]
    (by_input,), by_variable = gradients(layer, [x], cotangent, variables)

    def loss(x: np.ndarray) -> float:
        return float((_expected(layer, x)[0] * cotangent).sum())

    step, expected = 1e-5, np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        change = np.zeros(x.shape)
        change[index] = step
        expected[index] = (loss(x + change) - loss(x - change)) / (2 * step)
    assert np.abs(by_input - expected).max() < 1e-4 * np.abs(expected).max()
    assert all(np.abs(gradient).max() > 1e-3 for gradient in by_variable)


@pytest.mark.parametrize(
    ("shape", "per_frame"),
    [((20, CHANNELS), True), ((4, 5, CHANNELS), True), ((3, 4, 5, CHANNELS), False)],
)
def test_cost(shape: tuple[int, ...], per_frame: bool) -> None:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, tk.PatchMerger(TOKENS, per_frame)(inputs))
    positions = math.prod(shape[:-1])
    # A logit for each token, then a weighted sum into each token.
    assert tk.count_macs(model) == 2 * positions * TOKENS * CHANNELS
    operations = LAYER_NORM_OPERATIONS * CHANNELS + SOFTMAX_OPERATIONS * TOKENS
    assert model_cost(model).elementwise == positions * operations
    assert model.count_params() == TOKENS * CHANNELS + 2 * CHANNELS


def test_parameters_have_names_and_load() -> None:
    layer = tk.PatchMerger(TOKENS)
    layer.build((None, 5, 5, CHANNELS))
    shapes = {name: each.shape for name, each in reference_parameters(layer).items()}
    assert shapes == {
        "LayerNorm_0/scale": (CHANNELS,),
        "LayerNorm_0/bias": (CHANNELS,),
        "queries": (CHANNELS, TOKENS),
    }
    params = {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    tk.load_reference_params(layer, params)
    assert np.array_equal(to_numpy(layer.queries), params["queries"])

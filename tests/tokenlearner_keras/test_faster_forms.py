"""The forms in which layers compute for speed equal the plain ones."""

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import waken
from tokenlearner_keras.layers.common import plain_unless_differentiated
from tokenlearner_keras.layers.mlp import gelu
from tokenlearner_keras.layers.mlp import normalized
from tokenlearner_keras.layers.mlp import normalized_matmul
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.patch_embedding import patch_matmul
from tokenlearner_keras.layers.token_learner import kernel_columns
from tokenlearner_keras.layers.token_learner import shifted_sum

pytestmark = pytest.mark.every_backend


def _norm(channels: int) -> keras.layers.LayerNormalization:
    norm = keras.layers.LayerNormalization(epsilon=1e-6)
    norm.build((None, channels))
    norm.set_weights([1 + 0.1 * random(channels, seed=1), random(channels, seed=2)])
    return norm


def _expected_norm(x: np.ndarray, norm: keras.layers.LayerNormalization) -> np.ndarray:
    x = x.astype("float64")
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    scale, offset = norm.get_weights()
    return centred / deviation * scale + offset


@pytest.mark.parametrize("centre", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
def test_a_normalized_product_is_exact(centre: float, spread: float) -> None:
    """However far from zero the input is, as far as float32 can hold it."""
    x = (centre * spread + spread * random(2, 5, 32)).astype("float32")
    norm, kernel = _norm(32), random(32, 6, seed=3)
    expected = _expected_norm(x, norm) @ kernel.astype("float64")
    # Of numbers a thousandfold their spread float32 gives the mean to five digits.
    tolerance = 1e-5 if centre < 10 else 1e-3
    array, columns = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    arguments = (array, norm.gamma, norm.beta, norm.epsilon)
    for found in (normalized_matmul(*arguments, columns), normalized(*arguments) @ columns):
        difference = np.abs(to_numpy(found) - expected).max()
        assert difference < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("grid", [(5, 7), (1, 4), (1, 1)])
def test_shifted_sums_are_a_convolution(grid: tuple[int, int]) -> None:
    x, kernel = random(2, *grid, 6), random(3, 3, 6, 4, seed=1)
    columns = kernel_columns(ops.convert_to_tensor(kernel))
    found = shifted_sum(ops.matmul(ops.convert_to_tensor(x), columns))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    expected = np.einsum("bhwcij,ijcs->bhws", windows, kernel)
    assert np.abs(to_numpy(found) - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("layer", [tk.TokenLearnerV11(4), tk.TokenFuser()])
def test_quantised_weights_are_used(layer: keras.layers.Layer) -> None:
    x = random(2, 9, 64)
    inputs = (x,) if isinstance(layer, tk.TokenLearnerV11) else (random(2, 4, 64, seed=1), x)
    layer(*inputs)
    waken(layer)
    expected = to_numpy(layer(*inputs))
    layer.token_masking.hidden_layer.quantize("int8")
    found = to_numpy(layer(*inputs))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


JAX_ONLY = pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX has both forms")


@JAX_ONLY
def test_gradients_take_the_faster_form_and_forward_passes_the_plain_one() -> None:
    import jax

    def function(x: Any) -> Any:
        return plain_unless_differentiated(lambda x: 2 * x, lambda x: 3 * x, x)

    assert function(1.0) == jax.jit(function)(1.0) == 2
    assert jax.value_and_grad(function)(1.0) == (3, 3)
    assert jax.jvp(function, (1.0,), (1.0,)) == (3, 3)


@JAX_ONLY
@pytest.mark.parametrize("layer", [tk.TokenLearner(4), tk.TokenLearnerV11(4), tk.TokenFuser()])
def test_both_forms_of_a_layer_agree(layer: keras.layers.Layer) -> None:
    """Also with masks, and far from zero."""
    import jax

    x = 10 + random(2, 5, 5, 16)
    inputs = (random(2, 4, 16, seed=1), x) if isinstance(layer, tk.TokenFuser) else (x,)
    options = {} if isinstance(layer, tk.TokenFuser) else {"mask": random(2, 5, 5, seed=2) > 0}
    layer(*inputs)
    waken(layer)
    plain, (differentiated, _) = (
        layer(*inputs, **options),
        jax.jvp(lambda *inputs: layer(*inputs, **options), inputs, inputs),
    )
    assert np.abs(plain - differentiated).max() < 1e-5 * np.abs(plain).max()


@JAX_ONLY
@pytest.mark.parametrize("layer", [tk.TokenLearner(4, "mean"), tk.TokenLearnerV11(4)])
def test_a_forward_pass_alone_is_the_program_of_the_plain_maths(
    layer: keras.layers.Layer,
) -> None:
    """To the last instruction of what XLA makes of both."""
    import jax
    import jax.numpy as jnp

    def norm(x: Any, scale: Any, offset: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-6) * scale + offset

    def v10(weights: list[Any], x: Any) -> Any:
        maps = norm(x, *weights[:2])
        for number, kernel in enumerate(weights[2:]):
            maps = jax.nn.gelu(maps) if number else maps
            maps = jax.lax.conv_general_dilated(
                maps, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        maps = jax.nn.sigmoid(maps).reshape(2, 49, 4)
        return jnp.einsum("bns,bnc->bsc", maps, x.reshape(2, 49, 16)) / 49

    def v11(weights: list[Any], x: Any) -> Any:
        x = x.reshape(2, 49, 16)
        scale, offset, kernel, bias, last_kernel, last_bias = weights
        hidden = jax.nn.gelu(norm(x, scale, offset) @ kernel + bias)
        maps = jax.nn.softmax(hidden @ last_kernel + last_bias, axis=1)
        return jnp.einsum("bns,bnc->bsc", maps, x)

    x = random(2, 7, 7, 16)
    layer.build(x.shape)
    weights = [weight.value for weight in layer.trainable_variables]
    plain = v10 if isinstance(layer, tk.TokenLearner) else v11

    def call(weights: list[Any], x: Any) -> Any:
        return layer.stateless_call(weights, [], x)[0]

    def instructions(function: Any) -> list[str]:
        program = jax.jit(function).lower(weights, x).compile().as_text()
        lines = [re.sub(r"%[\w.-]+|, metadata={.*?}", "", line) for line in program.splitlines()]
        # Without the header, the names of the parameters and the table of source files.
        return [line for line in lines if " = " in line and "parameter(" not in line]

    found, expected = instructions(call), instructions(plain)
    assert len(expected) > 20
    assert found == expected


@pytest.mark.parametrize("block", [(4, 6), (2, 4, 6)])
def test_a_matmul_of_patches_is_a_convolution(block: tuple[int, ...]) -> None:
    """Also where the edges do not fill a patch."""
    x = random(2, *(5, 13, 14)[-len(block) :], 3)
    kernel, bias = random(*block, 3, 8, seed=1), random(8, seed=2)
    arrays = [ops.convert_to_tensor(array) for array in (x, kernel, bias)]
    expected = ops.conv(arrays[0], arrays[1], block, "valid", "channels_last") + arrays[2]
    assert np.allclose(to_numpy(patch_matmul(*arrays)), to_numpy(expected), atol=1e-5)


@JAX_ONLY
@pytest.mark.parametrize(
    ("platform", "tubelet_size", "convolves"),
    [("cpu", 1, False), ("tpu", 1, True), ("cpu", 2, False), ("tpu", 2, False)],
)
def test_patch_embedding_form_follows_the_platform(
    platform: str, tubelet_size: int, convolves: bool
) -> None:
    import jax

    shape = (2, 8, 8, 3) if tubelet_size == 1 else (2, 4, 8, 8, 3)
    layer = PatchEmbedding(8, (4, 4), tubelet_size)
    layer.build(shape)
    traced = jax.jit(layer).trace(random(*shape))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in program) == convolves


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="is about torch.compile")
def test_a_compiled_gelu_is_the_same() -> None:
    import torch

    x = torch.linspace(-20, 20, 1001, dtype=torch.float64, requires_grad=True)
    results = []
    for function in (gelu, torch.compile(gelu, backend="eager", fullgraph=True)):
        output = function(x)
        results.append((output, *torch.autograd.grad(output.sum(), x)))
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-12)

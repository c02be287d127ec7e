"""The layers written by hand in JAX, and the floor under them.

The floor is the products and convolutions of the maps and the sum over the positions alone: no
normalisation, GELU, biases, sigmoid or softmax.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.implementations.problem import NUM_CONVOLUTIONS
from benchmarks.implementations.problem import problem
from benchmarks.worker import Implementation

Parameters = dict[str, Any]


def handwritten(layer: str, shape: list[int], num_tokens: int, direction: str) -> Implementation:
    """Returns the published maths, compiled."""
    functions: dict[str, Callable[..., Any]] = {
        "v1.0": _v10,
        "v1.1": _v11,
        "mha": _mha,
        "fuser": _fuser,
    }
    return _compiled(functions[layer], layer, shape, num_tokens, direction)


def floor(
    layer: str, shape: list[int], num_tokens: int, direction: str, form: str
) -> Implementation:
    """Returns the bare products; v1.0's first one as `convolution` or `matmul`."""
    first = _convolution if form == "convolution" else _convolution_as_matmul
    functions: dict[str, Callable[..., Any]] = {
        "v1.0": lambda p, x: _floor_v10(p, x, first),
        "v1.1": _floor_v11,
        "mha": _floor_mha,
        "fuser": _floor_fuser,
    }
    return _compiled(functions[layer], layer, shape, num_tokens, direction)


def _compiled(
    of_frames: Callable[..., Any], layer: str, shape: list[int], num_tokens: int, direction: str
) -> Implementation:
    parameters, inputs, cotangent = problem(layer, shape, num_tokens)
    # To start with on the device, as everywhere else.
    arrays = jax.tree.map(jnp.asarray, [parameters, *inputs.values()])
    cotangent = jnp.asarray(cotangent)

    def function(p: Parameters, *inputs: Any) -> Any:
        """Folds the frames of a video into the batch."""
        leading = shape[:-3]
        output = of_frames(p, *(x.reshape(-1, *x.shape[len(leading) :]) for x in inputs))
        return output.reshape(*leading, *output.shape[1:])

    def loss(*arguments: Any) -> Any:
        return jnp.sum(function(*arguments) * cotangent)

    forward = jax.jit(function)
    both = jax.jit(jax.grad(loss, argnums=tuple(range(len(arrays)))))

    def run() -> Any:
        return jax.block_until_ready((forward if direction == "forward" else both)(*arrays))

    def result() -> dict[str, np.ndarray]:
        if direction == "forward":
            return {"output": np.asarray(run())}
        return {name: np.asarray(g) for name, g in zip(inputs, run()[1:], strict=True)}

    return Implementation(run, ("jax",), result)


def _norm(p: Parameters, name: str, x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-6) * p[f"{name}/scale"] + p[f"{name}/bias"]


def _dense(p: Parameters, name: str, x: Any) -> Any:
    return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]


def _mlp(p: Parameters, x: Any) -> Any:
    hidden = jax.nn.gelu(_dense(p, "token_masking/Dense_0", x), approximate=True)
    return _dense(p, "token_masking/Dense_1", hidden)


def _convolution(x: Any, kernel: Any) -> Any:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _convolution_as_matmul(x: Any, kernel: Any) -> Any:
    """One product to nine times the filters, and a sum over nine shifted grids."""
    filters = kernel.shape[-1]
    products = x @ kernel.transpose(2, 0, 1, 3).reshape(-1, 9 * filters)
    total = jnp.zeros(())
    for place, part in enumerate(jnp.split(products, 9, axis=-1)):
        row, column = place // 3 - 1, place % 3 - 1
        zeros = ((0, 0, 0), (-row, row, 0), (-column, column, 0), (0, 0, 0))
        total = total + jax.lax.pad(part, 0.0, zeros)
    return total


def _positions(x: Any) -> Any:
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _v10(p: Parameters, x: Any) -> Any:
    maps = _norm(p, "LayerNorm_0", x)
    for index in range(NUM_CONVOLUTIONS):
        maps = _convolution(maps, p[f"Conv_{index}/kernel"])
        last = index == NUM_CONVOLUTIONS - 1
        maps = jax.nn.sigmoid(maps) if last else jax.nn.gelu(maps, approximate=True)
    maps = _positions(maps)
    return jnp.einsum("bns,bnc->bsc", maps, _positions(x)) / maps.shape[1]


def _v11(p: Parameters, x: Any) -> Any:
    x = _positions(x)
    maps = jax.nn.softmax(_mlp(p, _norm(p, "LayerNorm_0", x)), axis=1)
    return jnp.einsum("bns,bnc->bsc", maps, x)


def _projected(p: Parameters, name: str, x: Any) -> Any:
    return jnp.einsum("...c,chd->...hd", x, p[f"attn/{name}/kernel"]) + p[f"attn/{name}/bias"]


def _mha(p: Parameters, x: Any) -> Any:
    x = _positions(x)
    queries = _projected(p, "query", p["tokens"][0])
    logits = jnp.einsum("shd,bnhd->bhsn", queries, _projected(p, "key", x))
    weights = jax.nn.softmax(logits / queries.shape[-1] ** 0.5)
    attended = jnp.einsum("bhsn,bnhd->bshd", weights, _projected(p, "value", x))
    return jnp.einsum("bshd,hdc->bsc", attended, p["attn/out/kernel"]) + p["attn/out/bias"]


def _fuser(p: Parameters, tokens: Any, x: Any) -> Any:
    mixed = _norm(p, "fuser_mix_norm1", tokens).transpose(0, 2, 1)
    mixed = _norm(p, "fuser_mix_norm2", _dense(p, "Dense_0", mixed).transpose(0, 2, 1))
    maps = jax.nn.sigmoid(_mlp(p, _norm(p, "LayerNorm_0", x)))
    return jnp.einsum("bhws,bsc->bhwc", maps, mixed)


def _floor_v10(p: Parameters, x: Any, first: Callable[..., Any]) -> Any:
    maps = first(x, p["Conv_0/kernel"])
    for index in range(1, NUM_CONVOLUTIONS):
        maps = _convolution(maps, p[f"Conv_{index}/kernel"])
    return jnp.einsum("bns,bnc->bsc", _positions(maps), _positions(x))


def _floor_maps(p: Parameters, x: Any) -> Any:
    return x @ p["token_masking/Dense_0/kernel"] @ p["token_masking/Dense_1/kernel"]


def _floor_v11(p: Parameters, x: Any) -> Any:
    x = _positions(x)
    return jnp.einsum("bns,bnc->bsc", _floor_maps(p, x), x)


def _floor_mha(p: Parameters, x: Any) -> Any:
    """Projects the queries and the sums instead of all positions."""
    x = _positions(x)
    queries = jnp.einsum("sc,chd->shd", p["tokens"][0], p["attn/query/kernel"])
    columns = jnp.einsum("shd,chd->chs", queries, p["attn/key/kernel"])
    sums = jnp.einsum("bnhs,bnc->bhsc", jnp.einsum("bnc,chs->bnhs", x, columns), x)
    attended = jnp.einsum("bhsc,chd->bshd", sums, p["attn/value/kernel"])
    return jnp.einsum("bshd,hdc->bsc", attended, p["attn/out/kernel"])


def _floor_fuser(p: Parameters, tokens: Any, x: Any) -> Any:
    mixed = jnp.einsum("bsc,st->btc", tokens, p["Dense_0/kernel"])
    return jnp.einsum("bhws,bsc->bhwc", _floor_maps(p, x), mixed)

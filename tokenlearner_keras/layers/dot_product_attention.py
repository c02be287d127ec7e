"""Scaled dot-product attention by the matrix of all weights, or in a form that never holds it."""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.common import MASKED_LOGIT
from tokenlearner_keras.layers.common import accumulation_dtype
from tokenlearner_keras.layers.common import dtype_name

#: What a layer may be asked for; `dot_product_attention` says what each means.
ATTENTION_FORMS = ("auto", "plain", "fused")

# Logits of an example, over all heads: up to here (256 MiB in float32) they are held at once, as
# that is at least as fast on CPUs. Beyond, the queries are taken in chunks.
_MOST_LOGITS = 2**26
_MOST_QUERIES, _LEAST_QUERIES = 512, 64  # of a chunk

_without_kernels: ContextVar[bool] = ContextVar("_without_kernels", default=False)


def dot_product_attention(queries: Any, keys: Any, values: Any, form: str = "auto") -> Any:
    """Returns `softmax(queries @ keys^T) @ values`, with a float32 softmax.

    The form is the best that backend and sizes allow:

    - JAX, for a TPU: a fused kernel, for more than 256 queries and keys (`jax_attention.py`);
    - JAX, on a GPU: cuDNN's, for 16-bit numbers;
    - PyTorch: its `scaled_dot_product_attention`;
    - else the matrix of all weights or, where it is large, chunks of queries, whose weights are
      computed a second time in the backward pass.

    Args:
        queries: `(batch, heads, queries, dim)`, already scaled.
        keys: `(batch, heads, keys, dim)`.
        values: `(batch, heads, keys, value dim)`.
        form: `"plain"` always takes the matrix of all weights; `"fused"` also takes a TPU's kernel
            for few queries, else it is `"auto"`.

    Returns:
        `(batch, heads, queries, value dim)` in the dtype of the values.
    """
    if form == "plain":
        return plain_attention(queries, keys, values)[0]
    backend = keras.backend.backend()
    if backend == "torch":
        from torch.nn.functional import scaled_dot_product_attention

        return scaled_dot_product_attention(queries, keys, values, scale=1.0)
    if backend == "jax" and not _without_kernels.get():
        from tokenlearner_keras.layers.jax_attention import jax_attention

        return jax_attention(queries, keys, values, _portable, always=form == "fused")
    return _portable(queries, keys, values)


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Inside, attention is made of operations that every platform has.

    `jax.export` for several platforms needs this: it asks each of them for every kernel.
    """
    before = _without_kernels.set(True)
    try:
        yield
    finally:
        _without_kernels.reset(before)


def plain_attention(queries: Any, keys: Any, values: Any, key_mask: Any = None) -> tuple[Any, Any]:
    """Returns the result and the weights, float32, `(batch, heads, queries, keys)`.

    Where the boolean `key_mask`, `(batch, keys)`, is False the weight is 0; if it is False for all
    keys, all have the same weight.
    """
    weights = attention_weights(queries, keys, key_mask)
    return ops.matmul(ops.cast(weights, values.dtype), values), weights


def attention_weights(queries: Any, keys: Any, key_mask: Any = None) -> Any:
    # Heads in front and plain matrix products: XLA and oneDNN run these faster on a
    # CPU than an einsum over heads that lie between the tokens and the channels.
    logits = ops.matmul(queries, ops.transpose(keys, (0, 1, 3, 2)))
    logits = ops.cast(logits, accumulation_dtype(dtype_name(queries)))
    if key_mask is not None:
        real = ops.expand_dims(key_mask, (1, 2))  # (B, 1, 1, M)
        logits = ops.where(real, logits, MASKED_LOGIT)
    return ops.softmax(logits, axis=-1)


def _portable(queries: Any, keys: Any, values: Any) -> Any:
    """All queries at once, or in chunks if the weights of an example take much memory."""
    sizes = (*queries.shape[1:3], keys.shape[2])
    if all(isinstance(size, int) for size in sizes) and math.prod(sizes) > _MOST_LOGITS:
        return attention_in_chunks(queries, keys, values)
    return plain_attention(queries, keys, values)[0]


def attention_in_chunks(queries: Any, keys: Any, values: Any) -> Any:
    """Returns attention for known sizes, some queries at a time, also in the backward pass."""

    @keras.remat
    def attend(part: Any, keys: Any, values: Any) -> Any:
        return plain_attention(part, keys, values)[0]

    heads, count = queries.shape[1:3]
    most = _MOST_LOGITS // (heads * keys.shape[2])
    most = max(_LEAST_QUERIES, min(most, _MOST_QUERIES))
    size = -(-count // -(-count // most))  # chunks of nearly equal size
    if keras.backend.backend() == "jax":
        from tokenlearner_keras.layers.jax_attention import one_after_another

        return one_after_another(lambda part: attend(part, keys, values), queries, size)
    parts = [attend(queries[:, :, i : i + size], keys, values) for i in range(0, count, size)]
    return ops.concatenate(parts, axis=2)

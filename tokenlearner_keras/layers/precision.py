"""Precision of the operations that must not run in half precision."""

from typing import Any

from keras import ops


def accumulation_dtype(compute_dtype: str) -> str:
    """Returns the dtype for softmax, sums over positions and logits.

    A sum over hundreds of positions loses bits in bfloat16 and overflows in
    float16, so these run in float32 under any mixed policy (and in float64 if the
    layer itself computes in float64).
    """
    # Not `keras.backend.result_type`: outside TensorFlow that never answers float64.
    return "float64" if compute_dtype == "float64" else "float32"


def widened(x: Any, compute_dtype: str) -> Any:
    """Returns an input in the layer's dtype, but one of a half-precision layer as it is.

    A LayerNormalization takes numbers beyond the range of float16: a layer that begins with
    one lets it cast its input (`autocast = False`) and calls this instead.
    """
    return x if is_half_precision(compute_dtype) else ops.cast(x, compute_dtype)


def is_half_precision(compute_dtype: str) -> bool:
    """Says whether a layer computes in 16 bits, as under a mixed policy."""
    return compute_dtype in ("bfloat16", "float16")

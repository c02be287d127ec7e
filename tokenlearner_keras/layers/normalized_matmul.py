"""A matrix product of a normalised input, for few columns."""

from typing import Any

from keras import ops


def normalized_matmul(x: Any, norm: Any, kernel: Any) -> Any:
    """Returns `norm(x) @ kernel`, where `norm` is a LayerNormalization over the channels.

    Where the kernel has few columns and the input many channels, the normalisation is a large
    part of the work, forward and backward. So its scale goes into the kernel, its
    offset becomes a row that is added, and what divides a position is applied to the product.
    Only the centred input is computed: without centring, too, an input far from zero would
    lose bits.

    For full precision: half of it would be too little for mean and deviation.

    Args:
        x: `(..., channels)`.
        norm: A built `keras.layers.LayerNormalization` over the last axis, with scale and
            offset.
        kernel: `(channels, columns)`.

    Returns:
        `(..., columns)`, in the dtype of `x`.
    """
    centred = x - ops.mean(x, axis=-1, keepdims=True)  # (..., C)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)  # (..., 1)
    scaled = ops.multiply(ops.expand_dims(norm.gamma, -1), kernel)  # (C, K)
    product = ops.matmul(centred, scaled)  # (..., K)
    offset = ops.matmul(ops.expand_dims(norm.beta, 0), kernel)[0]  # (K,)
    return product * ops.rsqrt(variance + norm.epsilon) + offset

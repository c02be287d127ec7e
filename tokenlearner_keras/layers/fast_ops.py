"""Faster forms of a 3x3 convolution to few channels, and of a matmul of normalized inputs."""

from typing import Any

from keras import ops

KERNEL_SIZE = 3


def kernel_columns(kernel: Any) -> Any:
    """Returns the kernel `(3, 3, channels, filters)` as columns `(channels, 9 * filters)`.

    The columns of one place of the 3x3 window stand together.
    """
    channels = kernel.shape[2]
    return ops.reshape(ops.transpose(kernel, (2, 0, 1, 3)), (channels, -1))


def shifted_sum(products: Any) -> Any:
    """Sums the nine products of each position's window; outside the grid they are zero.

    With `products = x @ kernel_columns(kernel)` this is the convolution of `x` with stride 1
    and zero padding: with few filters, a matmul to nine times as many columns uses a processor
    better than a convolution does.

    Args:
        products: `(batch, height, width, 9 * filters)`.

    Returns:
        `(batch, height, width, filters)`.
    """
    padded = ops.pad(products, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = ops.shape(products)[1:3]
    places = ops.split(padded, KERNEL_SIZE**2, axis=-1)
    total = 0
    for place, products_of_place in enumerate(places):
        row, column = divmod(place, KERNEL_SIZE)
        total = total + products_of_place[:, row : row + rows, column : column + columns]
    return total


def normalized_matmul(x: Any, norm: Any, kernel: Any) -> Any:
    """Returns `norm(x) @ kernel`, where `norm` is a LayerNormalization over the channels.

    Where the kernel has few columns and the input many channels, the normalisation is a large
    part of the work, forward and backward. So its scale goes into the kernel, its
    offset becomes a row that is added, and the division of a position is applied to the
    product. Only the centred input is computed: without centring, an input far from zero
    would lose bits.

    For full precision only: half precision is too coarse for the mean and the deviation.

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

"""A 3x3 convolution to few channels as one matrix product and nine shifted sums."""

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
    """Sums what the nine places of the window give a position, zero outside of the grid.

    With `products = x @ kernel_columns(kernel)` this is the convolution of `x` with stride 1
    and zero padding: with few filters a product of nine times their number of columns uses a
    processor better than a convolution does.

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

"""Resizes position tables to another grid, and repeats them for the frames of a video."""

import math
from typing import Any

import numpy as np

from tokenlearner_keras.layers.common import check_sizes


def resize_positions(table: Any, grid: tuple[int, ...], new_grid: tuple[int, ...]) -> np.ndarray:
    """Resizes a table `(prod(grid), channels)` by linear interpolation with aligned corners.

    Each axis of the grid, `(height, width)` or `(time, height, width)`, is interpolated in turn, in
    float64; the corners keep their values. The result has the table's dtype.

    Raises:
        ValueError: If a grid is not made of positive integers, the grids have a different number of
            axes, or the table has another length, such as with a class token's row.

    Reference:
        vision_transformer `vit_jax/checkpoint.py`, `interpolate_posembed`: the values of
        `scipy.ndimage.zoom` with `order=1`.
    """
    table = np.asarray(table)
    grid = check_sizes(grid, "grid")
    new_grid = check_sizes(new_grid, "new_grid")
    if len(grid) != len(new_grid):
        raise ValueError(
            f"resize_positions keeps the number of axes. Received grid {grid} and new_grid "
            f"{new_grid}."
        )
    if table.ndim != 2 or len(table) != math.prod(grid):
        raise ValueError(
            f"A table of grid {grid} has shape ({math.prod(grid)}, channels). Received shape "
            f"{table.shape}. Take the row of a class token off first."
        )
    if grid == new_grid:
        return table.copy()
    values = table.reshape(*grid, -1).astype("float64")
    for axis, size in enumerate(new_grid):
        values = _resize_axis(values, axis, size)
    return values.reshape(math.prod(new_grid), -1).astype(table.dtype)


def fit_table(table: Any, grid: tuple[int, ...], new_grid: tuple[int, ...]) -> np.ndarray:
    """Resizes a position table; that of a frame is repeated over time for the grid of a video.

    Reference:
        Arnab et al. 2021, arXiv 2103.15691, section 3.4.
    """
    if len(grid) == 2 and len(new_grid) == 3:
        return np.tile(resize_positions(table, grid, new_grid[1:]), (new_grid[0], 1))
    return resize_positions(table, grid, new_grid)


def _resize_axis(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    old = values.shape[axis]
    if old == size:
        return values
    # One output sample sits on the first input sample, as in scipy's zoom.
    places = np.linspace(0, old - 1, size)
    lower = np.minimum(places.astype(int), old - 1)
    upper = np.minimum(lower + 1, old - 1)
    shape = [1] * values.ndim
    shape[axis] = size
    share = (places - lower).reshape(shape)
    return values.take(lower, axis) * (1 - share) + values.take(upper, axis) * share

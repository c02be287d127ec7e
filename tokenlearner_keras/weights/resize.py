"""Resizes position tables to another grid, and repeats them for the frames of a video."""

import math
from typing import Any

import numpy as np

from tokenlearner_keras.layers.common import check_positive_integer


def resize_positions(table: Any, grid: tuple[int, ...], new_grid: tuple[int, ...]) -> np.ndarray:
    """Resizes a position table by linear interpolation with aligned corners.

    Each axis is interpolated in turn, in float64; the corners keep their values.

    Args:
        table: `(prod(grid), channels)`, flat in the order of `grid`. A class token's
            row must not be among them.
        grid: Size of the table, `(height, width)` or `(time, height, width)`.
        new_grid: Size to resize to, of as many axes.

    Returns:
        `(prod(new_grid), channels)` in the table's dtype; the same values where the
        grids are equal.

    Raises:
        ValueError: If a grid is not made of positive integers, the grids have a
            different number of axes, or the table has another length.

    Example:
        >>> resize_positions([[0.0], [1.0], [2.0], [3.0]], (2, 2), (3, 3)).ravel()
        array([0. , 0.5, 1. , 1. , 1.5, 2. , 2. , 2.5, 3. ])

    Reference:
        vision_transformer `vit_jax/checkpoint.py`, `interpolate_posembed`: the values
        of `scipy.ndimage.zoom` with `order=1`.
    """
    table = np.asarray(table)
    grid = tuple(check_positive_integer(size, "grid") for size in grid)
    new_grid = tuple(check_positive_integer(size, "new_grid") for size in new_grid)
    if len(grid) != len(new_grid):
        raise ValueError(
            f"resize_positions keeps the number of axes. Received grid {grid} and new_grid "
            f"{new_grid}. tile_positions repeats a frame's table over time."
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


def tile_positions(table: Any, num_frames: int) -> np.ndarray:
    """Repeats a frame's position table for every frame of a video.

    Args:
        table: `(height * width, channels)`, without a class token's row.
        num_frames: Number of frames, or of tubelets in time.

    Returns:
        `(num_frames * height * width, channels)`, time outermost.

    Raises:
        ValueError: If the table does not have two axes or `num_frames` is not a positive
            integer.

    Reference:
        Arnab et al. 2021, arXiv 2103.15691, section 3.4.
    """
    table = np.asarray(table)
    if table.ndim != 2:
        raise ValueError(f"Expected a table (positions, channels). Received shape {table.shape}.")
    return np.tile(table, (check_positive_integer(num_frames, "num_frames"), 1))


def fit_table(table: Any, grid: tuple[int, ...], new_grid: tuple[int, ...]) -> np.ndarray:
    """Resizes a position table; that of a frame is repeated over the time of a video.

    Args:
        table: `(prod(grid), channels)`, without a class token's row.
        grid: `(height, width)` or `(time, height, width)`.
        new_grid: As `grid`, or `(time, height, width)` for the table of a frame.

    Returns:
        `(prod(new_grid), channels)`; see `resize_positions` and `tile_positions`.

    Raises:
        ValueError: As `resize_positions` does.
    """
    if len(grid) == 2 and len(new_grid) == 3:
        return tile_positions(resize_positions(table, grid, new_grid[1:]), new_grid[0])
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

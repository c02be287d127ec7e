"""Fits the position table of a public ViT checkpoint to a model's grid."""

import math
from typing import NamedTuple

import keras
import numpy as np

from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.weights.resize import fit_table


class FittedPositions(NamedTuple):
    """A table of the layer's shape, and whether its grid is another than the file's."""

    table: np.ndarray
    is_resized: bool


def fit_positions(
    table: np.ndarray,
    layer: PositionEmbedding,
    has_class_token: bool,
    covers_time: bool | None,
) -> FittedPositions:
    """Returns a checkpoint's table for a layer.

    A square table is taken for a square grid, so it is resized even where its length is
    that of the layer's grid of another shape.

    Args:
        table: `(1, positions, channels)`, with or without a class token's row in front.
        layer: The built layer, for `(height, width)` or `(time, height, width)`.
        has_class_token: Whether the checkpoint has a class token.
        covers_time: Whether the table is that of a video; None: only if it has the
            length of the layer's `(time, height, width)`.

    Raises:
        ValueError: If the shape cannot be fitted.
    """
    own = keras.ops.convert_to_numpy(layer.table)
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != own.shape[2]:
        raise ValueError(f"expected shape (1, positions, {own.shape[2]}), received {table.shape}")
    front, rows = _split(table[0], layer.grid, has_class_token)
    rows, is_resized = _fit_rows(rows, layer.grid, covers_time)
    if layer.num_prefix_tokens:
        if front is None:
            # big_vision adds positions before the class token, which has none itself.
            kept = own[0, : layer.num_prefix_tokens]
            front = np.zeros_like(kept) if has_class_token else kept
        rows = np.concatenate([front, rows])
    return FittedPositions(rows[None], is_resized)


def _split(
    rows: np.ndarray, grid: tuple[int, ...], has_class_token: bool
) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns the class token's row, None if there is none, and the others.

    Files differ in whether the class token has a row, so its length tells: a square, or
    a square and one. Another length has to be the layer's own.
    """
    length = len(rows)
    own = (math.prod(grid), math.prod(grid[-2:]))
    has_row = _side(length - 1) is not None
    if has_class_token:
        has_row |= length - 1 in own and _side(length) is None
    else:
        has_row &= length not in own
    return (rows[:1], rows[1:]) if has_row else (None, rows)


def _fit_rows(
    rows: np.ndarray, grid: tuple[int, ...], covers_time: bool | None
) -> tuple[np.ndarray, bool]:
    length, frame = len(rows), grid[-2:]
    is_video = len(grid) == 3
    if is_video and length == math.prod(grid) and covers_time is not False:
        return rows, False
    side = _side(length)
    if covers_time or (side is None and length != math.prod(frame)):
        raise ValueError(
            f"expected the {math.prod(grid)} positions of the grid {grid} or a square number, "
            f"each perhaps with a class token's, received {length}"
        )
    source = frame if side is None else (side, side)
    rows = fit_table(rows, source, grid)
    return rows, source != frame or (is_video and grid[0] > 1)


def _side(length: int) -> int | None:
    """Returns the side of a square of `length` positions, None if it is no square."""
    side = math.isqrt(max(length, 0))
    return side if side and side * side == length else None

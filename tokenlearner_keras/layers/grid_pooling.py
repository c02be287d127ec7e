"""Average pooling to a grid of a given size: the paper's baseline."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.layers.checks import check_grid
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.precision import accumulation_dtype


def averaging_matrix(size: int, target: int) -> np.ndarray:
    """Returns (target, size) float32: row i averages the i-th of `target` windows.

    Windows run from floor(i * size / target) to ceil((i + 1) * size / target); they
    tile the input if `target` divides `size` and overlap by one otherwise.
    """
    matrix = np.zeros((target, size), "float32")
    for row in range(target):
        start, stop = row * size // target, -(-(row + 1) * size // target)
        matrix[row, start:stop] = 1.0 / (stop - start)
    return matrix


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class GridPooling(keras.layers.Layer):
    """Averages a grid of positions to an output grid, frame by frame.

    Args:
        grid: `(height, width)` of the output. The paper's "2x2 pool" means an output
            of 2x2, not a window of 2x2 (only that reproduces its GFLOPS).
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Input shape: `(batch, [time,] height, width, channels)`, sizes known. Output
    shape: `(batch, [time,] *grid, channels)`.

    Raises:
        ValueError: If the grid is not a pair of positive integers or is larger than
            the input's grid.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, table 5.
    """

    def __init__(self, grid: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = check_grid(grid, "grid")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        height, width = input_shape[-3:-1]
        if height is None or width is None or height < self.grid[0] or width < self.grid[1]:
            raise ValueError(
                f"GridPooling '{self.name}' averages to a grid of {self.grid}, which "
                "must not be larger than the input's grid, and that must be known. "
                f"Received shape {tuple(input_shape)}."
            )
        self._rows = averaging_matrix(height, self.grid[0])
        self._columns = averaging_matrix(width, self.grid[1])

    def call(self, x: Any) -> Any:
        dtype = accumulation_dtype(self.compute_dtype)
        wide = ops.cast(x, dtype)
        rows = ops.cast(self._rows, dtype)
        columns = ops.cast(self._columns, dtype)
        # The tensor with the batch comes first: LiteRT's converter gets the other order wrong.
        pooled = ops.einsum("...hwc,ih->...iwc", wide, rows)
        pooled = ops.einsum("...iwc,jw->...ijc", pooled, columns)
        return ops.cast(pooled, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-3], *self.grid, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid}

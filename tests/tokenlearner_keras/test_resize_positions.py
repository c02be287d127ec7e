"""Position tables on other grids: linear, corners aligned, as scipy's zoom."""

import math

import numpy as np
import pytest

from tokenlearner_keras.weights.resize import fit_table
from tokenlearner_keras.weights.resize import resize_positions

GRIDS = [
    ((4, 4), (7, 3)),
    ((14, 14), (24, 24)),
    ((14, 14), (12, 20)),
    ((5, 2), (2, 5)),
    ((3, 5), (1, 1)),
    ((1, 4), (3, 4)),
    ((2, 3, 4), (5, 2, 9)),
]


def _table(grid: tuple[int, ...], dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(0).normal(size=(math.prod(grid), 5)).astype(dtype)


def test_two_by_two_to_three_by_three() -> None:
    resized = resize_positions([[0.0], [1.0], [2.0], [3.0]], (2, 2), (3, 3))
    expected = [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]]
    np.testing.assert_array_equal(resized.reshape(3, 3), expected)


@pytest.mark.parametrize(("grid", "new_grid"), GRIDS)
def test_each_axis_is_interpolated_between_its_ends(
    grid: tuple[int, ...], new_grid: tuple[int, ...]
) -> None:
    table = _table(grid)
    expected = table.reshape(*grid, -1)
    for axis, (old, new) in enumerate(zip(grid, new_grid, strict=True)):
        places = np.linspace(0, old - 1, new)
        expected = np.apply_along_axis(
            lambda line, at=places: np.interp(at, np.arange(len(line)), line), axis, expected
        )
    resized = resize_positions(table, grid, new_grid)
    np.testing.assert_allclose(resized, expected.reshape(resized.shape), atol=1e-12)


@pytest.mark.parametrize(("grid", "new_grid"), GRIDS)
def test_equals_scipy(grid: tuple[int, ...], new_grid: tuple[int, ...]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    table = _table(grid)
    factors = [new / old for old, new in zip(grid, new_grid, strict=True)]
    expected = ndimage.zoom(table.reshape(*grid, -1), [*factors, 1], order=1)
    resized = resize_positions(table, grid, new_grid)
    np.testing.assert_allclose(resized, expected.reshape(resized.shape), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_type_stays_and_an_equal_grid_changes_nothing(dtype: str) -> None:
    table = _table((4, 6), dtype)
    assert resize_positions(table, (4, 6), (8, 3)).dtype == dtype
    same = resize_positions(table, (4, 6), (4, 6))
    assert same is not table
    np.testing.assert_array_equal(same, table)


@pytest.mark.parametrize(
    ("shape", "grid", "new_grid", "message"),
    [
        ((17, 5), (4, 4), (8, 8), "class token"),
        ((16,), (4, 4), (8, 8), r"shape \(16, channels\)"),
        ((16, 5), (4, 4), (2, 8, 8), "number of axes"),
        ((16, 5), (4, 4), (0, 8), "new_grid"),
        ((16, 5), (4, 4.0), (8, 8), "grid"),
    ],
)
def test_wrong_arguments(
    shape: tuple[int, ...], grid: tuple[int, ...], new_grid: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resize_positions(np.zeros(shape), grid, new_grid)


def test_the_table_of_a_frame_is_repeated_with_time_outermost() -> None:
    table = _table((2, 3), "float32")
    tiled = fit_table(table, (2, 3), (4, 2, 3))
    assert tiled.shape == (24, 5)
    for frame in tiled.reshape(4, 6, 5):
        np.testing.assert_array_equal(frame, table)
    with pytest.raises(ValueError, match=r"of grid \(2, 3\)"):
        fit_table(table[None], (2, 3), (4, 2, 3))

"""Maps the names of public ViT checkpoints to the reference's, and fits their positions."""

import math
import re
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.weights.resize import fit_table

EMBEDDING = "embedding/kernel"
POSITIONS = "Transformer/posembed_input/pos_embedding"
CLASS_TOKEN = "cls"

#: Where a file may keep the model: bare parameters, a train state of big_vision (alone
#: or as the image tower of a pair) and the older optimizer state.
_PREFIXES = ("", "params/", "opt/target/", "params/img/")

# Older files count all modules of a block together, newer ones each kind apart.
_OLDER_NUMBERS = {
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
    "LayerNorm_2": "LayerNorm_1",
    "MlpBlock_3": "MlpBlock_0",
}
_OTHER_PLACES = {
    "pos_embedding": POSITIONS,
    "Transformer/pos_embedding": POSITIONS,
    "output_projection/kernel": "head/kernel",
    "output_projection/bias": "head/bias",
}
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/")
_STACKED_BLOCKS = "Transformer/encoderblock/"


class Source(NamedTuple):
    """An array and its key in the file."""

    key: str
    array: np.ndarray


def check_vit_names(names: Collection[str]) -> str:
    """Returns what precedes the parameters' names; raises ValueError unless they are a ViT's."""
    prefix = next((each for each in _PREFIXES if each + EMBEDDING in names), None)
    if prefix is None:
        raise ValueError(
            f"holds no key {EMBEDDING!r}, also not below params/ or opt/target/, so it is not a "
            f"public ViT checkpoint. Its {len(names)} keys begin with {sorted(names)[:4]}"
        )
    if not any(name.startswith(f"{prefix}Transformer/encoderblock") for name in names):
        raise ValueError("holds no encoder block, so it is not a public ViT checkpoint")
    return prefix


def name_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Source], set[str]]:
    """Returns the arrays by the reference's names, and the keys outside the model.

    Reference:
        big_vision `models/vit.py` (`fix_old_checkpoints`, `scan_to_pyloop`) and
        `utils.py` (`load_params`); flax `convert_pre_linen` for the numbers.
    """
    prefix = check_vit_names(arrays)
    sources: dict[str, Source] = {}
    outside = set()
    for key, array in arrays.items():
        if not key.startswith(prefix):
            outside.add(key)
            continue
        for name, part in _unstack(key.removeprefix(prefix), array):
            name = _reference_name(name)
            if name in sources:
                raise ValueError(f"holds {name!r} twice, as {sources[name].key!r} and {key!r}")
            sources[name] = Source(key, part)
    return sources, outside


def count_blocks(names: Collection[str]) -> int:
    """Returns the number of encoder blocks among parameters by the reference's names."""
    matches = (_BLOCK.match(name) for name in names)
    return len({match[1] for match in matches if match})


def _unstack(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the array, or its part for each block if the blocks are stacked."""
    if not name.startswith(_STACKED_BLOCKS) or not array.ndim:
        yield name, array
        return
    for index, part in enumerate(array):
        yield name.replace("encoderblock/", f"encoderblock_{index}/"), part


def _reference_name(name: str) -> str:
    if _BLOCK.match(name):
        parts = name.split("/")
        parts[2] = _OLDER_NUMBERS.get(parts[2], parts[2])
        return "/".join(parts)
    return _OTHER_PLACES.get(name, name)


class FittedPositions(NamedTuple):
    """A table of the layer's shape, and whether its grid is another than the file's."""

    table: np.ndarray
    is_resized: bool


def fit_positions(
    table: np.ndarray,
    layer: PositionEmbedding,
    has_class_row: bool,
    has_class_token: bool,
    covers_time: bool | None,
    grid_size: tuple[int, int] | None = None,
) -> FittedPositions:
    """Returns a checkpoint's table `(1, positions, channels)` for a built layer.

    A table of the layer's length is taken as it is; any other is that of a square grid, unless
    `grid_size` says which. `has_class_row` is what the names in the checkpoint say; it counts where
    the length allows both. `covers_time` says whether the table is that of a video; None: only if
    it has the length of the layer's `(time, height, width)`.
    """
    own = keras.ops.convert_to_numpy(layer.table)
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != own.shape[2]:
        raise ValueError(f"expected shape (1, positions, {own.shape[2]}), received {table.shape}")
    length, prefix = table.shape[1], layer.num_prefix_tokens
    if grid_size is None and covers_time is not False and length == layer.num_positions:
        if has_class_row == bool(prefix):
            return FittedPositions(table, False)
    has_row = _has_row(length, layer.grid, has_class_row, grid_size)
    front, rows = (table[0, :1], table[0, 1:]) if has_row else (None, table[0])
    rows, is_resized = _fit_rows(rows, layer.grid, covers_time, grid_size)
    if prefix:
        if front is None:
            # big_vision adds positions before the class token, which has none itself.
            kept = own[0, :prefix]
            front = np.zeros_like(kept) if has_class_token else kept
        rows = np.concatenate([front, rows])
    return FittedPositions(rows[None], is_resized)


def _has_row(
    length: int, grid: tuple[int, ...], expected: bool, grid_size: tuple[int, int] | None
) -> bool:
    """Returns whether a table has a class token's row: what is expected, if its length allows."""
    if grid_size is not None:
        lengths: tuple[int, ...] = (math.prod(grid_size), math.prod(grid))
    else:
        lengths = (math.prod(grid), math.prod(grid[-2:]))
    fits = [
        length - row in lengths or (grid_size is None and _side(length - row) is not None)
        for row in (False, True)
    ]
    return expected if fits[expected] or not fits[not expected] else not expected


def _fit_rows(
    rows: np.ndarray,
    grid: tuple[int, ...],
    covers_time: bool | None,
    grid_size: tuple[int, int] | None,
) -> tuple[np.ndarray, bool]:
    length, frame = len(rows), grid[-2:]
    is_video = len(grid) == 3
    if is_video and length == math.prod(grid) and covers_time is not False:
        return rows, False
    side = _side(length)
    square = frame if side is None else (side, side)
    source = grid_size or square
    if covers_time or length != math.prod(source):
        wanted = f"the {math.prod(grid)} positions of the grid {grid} or "
        wanted += "a square number" if grid_size is None else f"those of grid_size={grid_size}"
        raise ValueError(
            f"expected {wanted}, each perhaps with a class token's, received {length}"
            + ("" if grid_size else ". Pass grid_size=(height, width) if it is another grid's")
        )
    rows = fit_table(rows, source, grid)
    return rows, source != frame or (is_video and grid[0] > 1)


def _side(length: int) -> int | None:
    """Returns the side of a square of `length` positions, None if it is not a square."""
    side = math.isqrt(max(length, 0))
    return side if side and side * side == length else None

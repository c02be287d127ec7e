"""How a sequence that becomes tokens is laid out: tokens in front, then a grid."""

import math
import warnings
from typing import Any

import keras

from tokenlearner_keras.layers.common import check_sizes
from tokenlearner_keras.models.layer_lookup import TokenLayout
from tokenlearner_keras.models.layer_lookup import known_layout


def layout_before(x: keras.KerasTensor) -> TokenLayout | None:
    """Returns the layout that the nearest layer upstream with one gives its output."""
    operation, index, _ = x._keras_history
    nodes, seen = [operation._inbound_nodes[index]], set()
    while nodes:
        node = nodes.pop(0)
        known = known_layout(node)
        if known is not None:
            return known
        if id(node) not in seen:
            seen.add(id(node))
            nodes += node.parent_nodes
    return None


def choose_layout(
    length: int | None,
    found: TokenLayout | None,
    grid: tuple[int, ...] | None,
    num_prefix_tokens: int | None,
) -> TokenLayout:
    """Returns the layout that was asked for, completed by the one found if that fits.

    A `length` of None is unknown. `found` is what the model says about the sequence before it may
    have been changed; it stands for a grid or a number of tokens in front that is None, if it has
    one.
    """
    if grid is None and num_prefix_tokens is None:
        return _found_or_plain(length, found)
    if num_prefix_tokens is not None:
        prefixes = [num_prefix_tokens]
    elif found and _fits(length, *found):
        prefixes = [found.num_prefix_tokens]
    else:
        # The sequence is another one by now, with or without the tokens in front.
        prefixes = [found.num_prefix_tokens if found else 0, 0]
    if grid is None:
        grid = found.grid if found and _fits(length, prefixes[0], found.grid) else None
    layouts = [TokenLayout(prefix, grid) for prefix in prefixes]
    for layout in layouts:
        if length is None or _fits(length, layout.num_prefix_tokens, grid):
            return layout
    raise ValueError(
        f"The sequence has {length} tokens, which does not fit {prefixes[0]} tokens in front "
        + ("and at least one to learn from" if grid is None else f"and the grid {grid}")
        + ". Pass `num_prefix_tokens` (1 for a class token) and `grid`, (height, width) or "
        "(time, height, width), so that they add up."
    )


def _found_or_plain(length: int | None, found: TokenLayout | None) -> TokenLayout:
    if found is None:
        return TokenLayout()
    if _fits(length, *found):
        return found
    front = found.num_prefix_tokens
    if not front or not _fits(length, front, None):
        return TokenLayout()
    if found.grid is not None and length == math.prod(found.grid):
        return TokenLayout(0, found.grid)  # The tokens in front have been cut off.
    warnings.warn(
        f"The sequence has {length} tokens, no longer the {front} in front and the grid "
        f"{found.grid} of its position embedding. The first {front} stay in front; pass "
        "num_prefix_tokens=0 if they are none of those.",
        stacklevel=6,
    )
    return TokenLayout(front)


def _fits(length: int | None, prefix: int, grid: tuple[int, ...] | None) -> bool:
    if length is None:
        return False
    return prefix < length if grid is None else length == prefix + math.prod(grid)


def check_token_grid(grid: Any, name: str) -> tuple[int, ...]:
    """Returns a grid of two or three sizes as a tuple of integers."""
    if not isinstance(grid, (list, tuple)) or len(grid) not in (2, 3):
        raise ValueError(
            f"`{name}` must be (height, width) or (time, height, width). Received: {grid!r}."
        )
    return check_sizes(grid, name)

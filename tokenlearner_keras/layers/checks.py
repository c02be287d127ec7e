"""Checks of constructor arguments, with messages that say how to mend them."""

import difflib
import numbers
from typing import Any


def check_positive_integer(value: Any, name: str) -> int:
    """Returns `value` as an int; raises ValueError unless it is an integer >= 1."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {value!r}.")
    return int(value)


def check_rate(value: Any, name: str) -> float:
    """Returns `value` as a float; raises ValueError unless it is in [0, 1)."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0.0 <= value < 1.0:
        raise ValueError(f"`{name}` must be a rate: at least 0 and below 1. Received: {value!r}.")
    return float(value)


def check_choice(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    """Returns `value`; raises ValueError unless it is one of `choices`."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` must be one of {listed}. Received: {value!r}.{hint}")
    return value


def check_grid(value: Any, name: str) -> tuple[int, int]:
    """Returns `value` as (height, width); raises ValueError unless it is such a pair."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"`{name}` must be two integers (height, width). Received: {value!r}.")
    return (
        check_positive_integer(value[0], f"{name}[0]"),
        check_positive_integer(value[1], f"{name}[1]"),
    )


def check_size(value: Any, name: str) -> tuple[int, int]:
    """Returns an int as a square, and a pair of integers as (height, width)."""
    if isinstance(value, (list, tuple)):
        return check_grid(value, name)
    side = check_positive_integer(value, name)
    return (side, side)

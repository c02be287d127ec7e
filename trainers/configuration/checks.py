"""Checks values of the configuration; an error names the key, what it must be and what it is."""

import math

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean


def check(fits: bool, key: str, expected: str, received: object, hint: str = "") -> None:
    """Raises a ConfigurationError unless a value fits; `hint` is a sentence on what to do."""
    if not fits:
        raise ConfigurationError(
            f"{key} must be {expected}. Received: {received!r}.{f' {hint}' if hint else ''}"
        )


def check_choice(key: str, value: object, choices: tuple[object, ...]) -> None:
    """Checks that a value is one of several."""
    names = [str(choice) for choice in choices]
    hint = did_you_mean(value, names).strip()
    check(value in choices, key, f"one of {', '.join(names)}", value, hint)


def check_positive(key: str, value: float) -> None:
    """Checks a whole number of at least 1."""
    check(value == int(value) and value >= 1, key, "a whole number of at least 1", value)


def check_at_least_zero(key: str, value: float) -> None:
    """Checks a finite number of at least 0."""
    check(0 <= value < math.inf, key, "a number of at least 0", value)


def check_share(key: str, value: float) -> None:
    """Checks a number from 0 to 1."""
    check(0 <= value <= 1, key, "from 0 to 1", value)


def number_pair(key: str, value: object) -> tuple[float, float]:
    """Returns two numbers as a tuple; configuration files give lists."""
    fits = isinstance(value, (tuple, list)) and len(value) == 2
    fits = fits and all(isinstance(each, (int, float)) for each in value)  # type: ignore[attr-defined]
    check(fits, key, "two numbers, such as (0.5, 1.0)", value)
    return (value[0], value[1])  # type: ignore[index]

"""Suggests the closest valid name."""

import difflib
import re
from collections.abc import Iterable

from trainers.durations import NAMES
from trainers.durations import UNITS


def did_you_mean(received: object, names: Iterable[str]) -> str:
    """Guesses what a misspelt name was meant to be, for the end of a message.

    Args:
        received: What was given.
        names: What would have been right.

    Returns:
        " Did you mean …?", or "" if nothing is near.
    """
    near = near_names(str(received), names)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def near_names(received: str, names: Iterable[str]) -> list[str]:
    """Returns the names that a misspelt one may have meant; several if each is as likely.

    Args:
        received: What was given.
        names: What would have been right; keys of the configuration may have their section
            and a dot in front, which need not be given.
    """
    # With and without the section, in small letters.
    forms: dict[str, list[str]] = {}
    for name in names:
        forms.setdefault(name.lower(), []).append(name)
        if section := re.match(r"[a-z_]+\.", name):
            forms.setdefault(name.lower()[section.end() :], []).append(name)
    text = received.lower()
    for form in (text, f"{text}.name"):  # `--config.model=vit_s16`
        if form in forms:
            return forms[form]
    close = difflib.get_close_matches(text, forms, n=1, cutoff=0.8)
    if not close and f"total_{_unit(text)}" in forms:
        return forms[f"total_{_unit(text)}"]
    # `acc` is short for accuracy, and so is `lr` for learning_rate.
    close = close or [form for form in forms if form.startswith(text) or _initials(form) == text]
    close = close or difflib.get_close_matches(text, forms, n=1, cutoff=0.5)
    return forms[close[0]] if close else []


def _unit(text: str) -> str | None:
    """Returns the unit of a duration that is not said to be another's than the training's."""
    prefix, _, unit = text.rpartition("_")
    near = difflib.get_close_matches(unit, UNITS, n=1, cutoff=0.8)
    other = difflib.get_close_matches(prefix, NAMES, n=1, cutoff=0.5)
    return near[0] if near and not other else None


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.split("_"))

"""What a misspelt name was meant to be."""

import difflib
from collections.abc import Iterable


def did_you_mean(received: str, names: Iterable[str]) -> str:
    """Guesses what a misspelt name was meant to be, for the end of a message.

    Args:
        received: What was given.
        names: What would have been right.

    Returns:
        " Did you mean …?", or "" if nothing is near.
    """
    near = difflib.get_close_matches(received, list(names), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""

"""Errors that end a command with one message, and the hints in their messages."""

import difflib
import errno
import re
from collections.abc import Collection
from collections.abc import Iterable


class ConfigurationError(Exception):
    """Wrong usage or configuration; ends the program with status 2."""


class DataError(Exception):
    """Damaged or unreadable data; ends the program with status 1."""


class TrainingError(Exception):
    """The training cannot continue; ends the program with status 1."""


class DivergedError(TrainingError):
    """The loss or the gradient of a block of steps is not finite."""


class LostHostError(TrainingError):
    """Another host of the training is gone; ends the program at once, with status 1."""


class ExportError(Exception):
    """A model cannot be exported, or its export's outputs differ; status 1."""


class Interrupted(BaseException):
    """A signal asked the program to stop; ends it with status 128 + signal.

    Like KeyboardInterrupt, it passes every `except Exception`.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


_NO_SPACE = "Free some space"
_NO_PERMISSION = "Allow this user to write there, or choose another place"
_GONE = "Find out what has removed it, or choose another place"

_HINTS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "Make the file system writable, or choose another place",
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.ESTALE: _GONE,
    errno.EIO: "Check the disk",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENFILE: "Raise the system's limit of open files",
}


def explain_os_error(error: OSError) -> str:
    """Returns one line: what failed, on which file if that is known, and what may help."""
    if error.errno is None or error.strerror is None:
        return str(error)  # of a TensorFlow file system: its text names the path already
    place = f"{error.filename}: " if error.filename is not None else ""
    hint = _HINTS.get(error.errno)
    advice = f" {hint}; then run the same command again." if hint else ""
    return f"{place}{error.strerror}.{advice}"


def one_line(error: object) -> str:
    """Returns an error's text on one line, or the name of its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text without its full stop; see `one_line`."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def did_you_mean(received: object, names: Iterable[str]) -> str:
    """Returns " Did you mean …?" with the closest of `names`, or "" if none is close."""
    near = near_names(str(received), names)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def near_names(received: str, names: Iterable[str]) -> list[str]:
    """Returns the names that a misspelt one may have meant, several if equally likely.

    Each of `names` may have a section and a dot in front, which `received` may lack.
    """
    # With and without the section, in lower case.
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
    close = close or _total_of_unit(text, forms)
    # `acc` is short for accuracy, and so is `lr` for learning_rate.
    close = close or [form for form in forms if form.startswith(text) or _initials(form) == text]
    close = close or difflib.get_close_matches(text, forms, n=1, cutoff=0.5)
    return forms[close[0]] if close else []


def _total_of_unit(text: str, forms: Collection[str]) -> list[str]:
    """Returns `total_epochs` for `epochs` or `num_epochs`, but not for `evaluation_epochs`."""
    prefix, _, unit = text.rpartition("_")
    parts = [form.rpartition("_") for form in forms]
    units = [last for first, _, last in parts if first == "total"]
    near = difflib.get_close_matches(unit, units, n=1, cutoff=0.8)
    prefixes = {first for first, _, last in parts if last in units}
    durations = [p for p in prefixes if all(f"{p}_{unit}" in forms for unit in units)]
    other = difflib.get_close_matches(prefix, durations, n=1, cutoff=0.5)
    return [f"total_{near[0]}"] if near and not other else []


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.split("_"))

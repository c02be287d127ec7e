"""Writes an export under a temporary name and renames it once it passes its check."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.files import check_writable
from trainers.utils.files import folder_of


def check_output(path: str | None) -> None:
    """Checks that something can be written to a path where nothing is yet; makes its folder.

    Raises:
        ConfigurationError: If no path is given, it is not local, or something is there.
    """
    if not path:
        raise ConfigurationError("Expected --output=PATH. Received none.")
    if files.is_remote(path):
        raise ConfigurationError(
            f"--output={path}: expected a path on a local disk, where runtimes can read it. "
            "Copy it from there."
        )
    for each in (path, json_path(path)):
        if os.path.lexists(each):
            raise ConfigurationError(
                f"--output={path}: {each} is there already. Remove it, or name another."
            )
    check_writable(folder_of(path), f"--output={path}")


def json_path(path: str) -> str:
    """Returns the file beside an output that describes it."""
    return f"{path.rstrip('/')}.json"


@contextlib.contextmanager
def partial_output(path: str) -> Iterator[str]:
    """Yields a path beside `path`; what is there at the end of the block is renamed to it.

    So is the JSON file beside it, which the block writes. After an error, or without anything
    there, nothing is left.
    """
    folder = Path(path).absolute().parent
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        partial = os.path.join(temporary, "model")
        yield partial
        os.rename(json_path(partial), json_path(path))
        os.rename(partial, path)

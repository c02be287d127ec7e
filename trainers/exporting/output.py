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
    """Checks that a path is free and can be written; makes its folder.

    Raises:
        ConfigurationError: If no path is given, it is not local, or it exists.
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
    """Returns the path of the JSON file that describes an output."""
    return f"{path.rstrip('/')}.json"


@contextlib.contextmanager
def partial_output(path: str) -> Iterator[str]:
    """Yields a temporary path beside `path`; what the block writes there is renamed to `path`.

    The block writes a JSON file beside it, which is renamed as well. After an error nothing is
    left.
    """
    folder = Path(path).absolute().parent
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        partial = os.path.join(temporary, "model")
        yield partial
        os.rename(json_path(partial), json_path(path))
        os.rename(partial, path)

"""Whether an output can be written, found out before the work is done whose result it takes."""

import os
import tempfile

from trainers import files
from trainers.errors import ConfigurationError


def check_writable(folder: str, flag: str) -> None:
    """Makes a folder if there is none, and checks that files can be written into it.

    Args:
        folder: On a local disk; elsewhere it is only made.
        flag: What the user gave, for the message, such as `--output=a/b.csv`.

    Raises:
        ConfigurationError: If it cannot be made or written into.
    """
    try:
        files.make_directories(folder)
        if not files.is_remote(folder):
            # Permissions do not tell all: some file systems take no files.
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise ConfigurationError(
            f"{flag} cannot be written: {folder}: {error.strerror or error}. Choose another place."
        ) from error


def folder_of(path: str) -> str:
    """Returns the folder that a file lies in."""
    folder = path.rpartition("/")[0]
    return folder or ("/" if path.startswith("/") else os.curdir)

"""Locks a file, so that one process at a time does some work."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.files import AnyPath

LOCK_FILE = "run.lock"
_TRAINING = (
    "Another training (process {owner}) is running in {folder}. Wait for its end, stop it, or "
    "choose another --workdir."
)


def workdir_lock(workdir: str) -> AbstractContextManager[bool]:
    """Keeps a second training out of a work directory; see `locked`."""
    return locked(files.join(workdir, LOCK_FILE), _TRAINING)


@contextlib.contextmanager
def locked(path: AnyPath, refusal: str = "") -> Iterator[bool]:
    """Holds a lock file, created if necessary and left in place; yields whether it is locked.

    The lock dies with its process, however that ends. Where file locks do not exist (gs://,
    Windows, some network file systems) nothing is locked. While another process holds the lock,
    this one waits, or raises a ConfigurationError with `refusal`, which names {owner} and {folder}.
    """
    if files.is_remote(path):
        yield False
        return
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    # "a": until the lock is ours, the number in the file is the owner's.
    with open(path, "a+", encoding="ascii") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
            is_held = True
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ConfigurationError(refusal.format(owner=owner, folder=folder)) from error
        except (ImportError, OSError):
            is_held = False
        if is_held and refusal:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield is_held

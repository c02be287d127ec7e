"""Locks a work directory, so that one training at a time writes to it."""

import os
from pathlib import Path
from typing import IO

from trainers.utils import files
from trainers.utils.errors import ConfigurationError

LOCK_FILE = "run.lock"
_TRAINING = (
    "Another training (process {owner}) is running in {folder}. Wait for its end, stop it, or "
    "choose another --workdir."
)


class WorkdirLock:
    """Keeps a second training out of a work directory, until the context is left.

    The lock dies with its process, however that ends. Where file locks do not exist
    (gs://, Windows, some network file systems) nothing is locked.

    Args:
        name: The name of the lock file.
        refusal: The message to a second process, with the placeholders {owner} and {folder}.
    """

    def __init__(self, name: str = LOCK_FILE, refusal: str = _TRAINING) -> None:
        self._name = name
        self._refusal = refusal
        self._file: IO[str] | None = None

    def __enter__(self) -> "WorkdirLock":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def is_held(self) -> bool:
        """Returns whether this process holds the lock; never where file locks do not exist."""
        return self._file is not None

    def acquire(self, workdir: str) -> None:
        """Locks an existing work directory; a remote one is not locked.

        Raises:
            ConfigurationError: If another training has locked it.
            OSError: If the lock file cannot be written.
        """
        if files.is_remote(workdir):
            return
        try:
            import fcntl
        except ImportError:
            return
        # "a": until the lock is ours, the number in the file is the owner's.
        file = Path(workdir, self._name).open("a+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise ConfigurationError(self._refusal.format(owner=owner, folder=workdir)) from error
        except OSError:  # a file system without locks
            file.close()
            return
        self._file = file
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()

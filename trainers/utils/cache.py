"""Locates the cache directory, and checks that files in it are whole."""

import contextlib
import hashlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from trainers.utils import files


def cache_directory() -> Path:
    """Returns $TOKENLEARNER_CACHE if set, else a folder among the platform's user caches."""
    chosen = os.environ.get("TOKENLEARNER_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        xdg = os.environ.get("XDG_CACHE_HOME")
        base = Path(xdg) if xdg else Path.home() / ".cache"
    return base / "tokenlearner_keras"


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yields another path to write to, which then replaces `path`; keeps a digest beside it.

    Of two writers the last one wins, and neither fails.
    """
    unique = f"{uuid.uuid4().hex}-"
    with files.replaced_file(path, unique) as partial:
        yield Path(partial)
        files.fsync(partial)
    with files.replaced_file(checksum_path(path), unique) as partial:
        files.write(partial, f"{_sha256(path)}\n".encode())


def checksum_path(path: Path) -> Path:
    """Returns the path of the file that keeps the digest of `path`."""
    return path.with_name(path.name + ".sha256")


def is_intact(path: Path) -> bool:
    """Returns whether a file agrees with the digest that `replaced_file` wrote beside it."""
    try:
        expected = checksum_path(path).read_text(encoding="ascii").strip()
        return _sha256(path) == expected
    except (OSError, UnicodeDecodeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

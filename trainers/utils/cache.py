"""Locates the cache directory, and writes files in it whole or not at all."""

import contextlib
import hashlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

APPLICATION = "tokenlearner_keras"
ENVIRONMENT_VARIABLE = "TOKENLEARNER_CACHE"


def cache_directory() -> Path:
    """Returns the directory for generated data and indexes, without creating it.

    It is `$TOKENLEARNER_CACHE` if set, else the platform's place for user caches.
    """
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
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
    return base / APPLICATION


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to, then renames it to `path`.

    A crash leaves the old file or none, never half a file. Of two writers the last one wins, and
    neither fails. The directory is created if necessary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def checksum_path(path: Path) -> Path:
    """Returns the path of the file that keeps the digest of `path`."""
    return path.with_name(path.name + ".sha256")


def write_checksum(path: Path) -> None:
    """Writes the digest of `path` beside it."""
    digest = file_sha256(path)
    with replaced_file(checksum_path(path)) as temporary:
        temporary.write_text(digest + "\n", encoding="ascii")


def is_intact(path: Path) -> bool:
    """Returns whether a file agrees with the digest that `write_checksum` wrote beside it."""
    try:
        expected = checksum_path(path).read_text(encoding="ascii").strip()
        return file_sha256(path) == expected
    except (OSError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock file, created if necessary and left in place, so that one process works.

    The lock dies with its process. Where file locks do not exist (Windows, some network file
    systems) both processes do the work, which only costs time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield

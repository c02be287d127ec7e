"""The cache directory, and files in it that are complete or absent."""

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
    """Names the directory for generated data and indexes (not created here).

    Returns:
        `$TOKENLEARNER_CACHE` if set, else the platform's place for user caches.
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
    """Hashes a file.

    Args:
        path: an existing file.

    Returns:
        The SHA-256 digest, 64 hexadecimal digits.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Lets the caller write a temporary file, then moves it to `path` at once.

    A crash leaves the old file or none, never half a file; of two writers the last
    one wins and both end well.

    Args:
        path: the final name; its directory is made if necessary.

    Yields:
        The path of the temporary file, in the same directory.
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
    """Names the file that keeps the digest of `path`.

    Args:
        path: a cached file.

    Returns:
        `path` with `.sha256` appended.
    """
    return path.with_name(path.name + ".sha256")


def write_checksum(path: Path) -> None:
    """Keeps the digest of `path` beside it.

    Args:
        path: a complete file.
    """
    digest = file_sha256(path)
    with replaced_file(checksum_path(path)) as temporary:
        temporary.write_text(digest + "\n", encoding="ascii")


def is_intact(path: Path) -> bool:
    """Compares a file with the digest kept beside it.

    Args:
        path: a file written together with `write_checksum`.

    Returns:
        True if both files are there and agree.
    """
    try:
        expected = checksum_path(path).read_text(encoding="ascii").strip()
        return file_sha256(path) == expected
    except (OSError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock so that only one process does some long work.

    The lock dies with its process. Where file locks do not exist (Windows, some
    network file systems) both processes work, which costs time and nothing else.

    Args:
        path: the lock file; made if necessary and left in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield

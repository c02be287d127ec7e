"""Reads, writes and lists files; paths with a scheme, such as `gs://bucket/run`, by `tf.io.gfile`.

Every failure is an `OSError`.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import one_line

AnyPath = str | Path

#: Prefix of a file that is being written, or was when its writer was killed.
PARTIAL = ".partial-"


def path_text(path: AnyPath | None) -> str:
    """Returns a path that a caller gave, "~" expanded, as a string; "" for None."""
    return "" if path is None else os.path.expanduser(os.fspath(path))


def is_remote(path: AnyPath) -> bool:
    """Returns whether a path has a scheme, so that it belongs to a file system of TensorFlow."""
    return "://" in str(path)


def is_utf8(path: AnyPath) -> bool:
    """Returns whether a name is valid UTF-8, as TensorFlow requires."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def join(path: AnyPath, *names: str) -> str:
    """Returns the path of something inside a directory; `pathlib` would merge slashes of a URL."""
    if is_remote(path):
        return "/".join([str(path).rstrip("/"), *names])
    return os.path.join(path, *names)


def exists(path: AnyPath) -> bool:
    """Returns whether there is a file or a directory."""
    if is_remote(path):
        with as_os_error(path) as gfile:
            return bool(gfile.exists(str(path)))
    return os.path.exists(path)


def is_directory(path: AnyPath) -> bool:
    """Returns whether there is a directory; on an object store, anything below the path."""
    if is_remote(path):
        with as_os_error(path) as gfile:
            return bool(gfile.isdir(str(path)))
    return os.path.isdir(path)


def list_names(path: AnyPath) -> list[str]:
    """Returns the names in a directory, sorted; none if there is no directory."""
    if not is_directory(path):
        return []
    if is_remote(path):
        with as_os_error(path) as gfile:
            # Object stores end the names of directories with a slash.
            return sorted(name.rstrip("/") for name in gfile.listdir(str(path)))
    return sorted(os.listdir(path))


def list_entries(path: AnyPath, extensions: tuple[str, ...] = ()) -> list[tuple[str, bool]]:
    """Returns the visible names in a directory, sorted, and whether each is a directory.

    On a file system of TensorFlow, a name that ends in one of `extensions` (lower case) is taken
    for a file, because finding out takes a request per name.
    """
    if not is_remote(path):
        with os.scandir(path) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    else:
        found = [
            (name, not name.lower().endswith(extensions) and is_directory(join(path, name)))
            for name in list_names(path)
        ]
    return [(name, is_folder) for name, is_folder in found if not name.startswith(".")]


def files_below(
    folder: str, extensions: tuple[str, ...] = (), visited: set[str] | None = None
) -> Iterator[str]:
    """Yields all files in a directory and its subdirectories, sorted, without hidden ones.

    `visited` collects the identities of directories, so that a link to a parent directory ends.
    For `extensions` see `list_entries`.
    """
    visited = set() if visited is None else visited
    if identity(folder) in visited:
        return
    visited.add(identity(folder))
    for name, is_folder in list_entries(folder, extensions):
        path = join(folder, name)
        if is_folder:
            yield from files_below(path, extensions, visited)
        else:
            yield path


def identity(path: str) -> str:
    """Returns an identifier that all paths to a file share."""
    return path if is_remote(path) else os.path.realpath(path)


def make_directories(path: AnyPath) -> None:
    """Creates a directory and its parents, where they do not exist."""
    if is_remote(path):
        with as_os_error(path) as gfile:
            gfile.makedirs(str(path))
    else:
        os.makedirs(path, exist_ok=True)


def read(path: AnyPath) -> bytes:
    """Returns the content of a file; raises FileNotFoundError if there is none."""
    if is_remote(path):
        with as_os_error(path) as gfile, gfile.GFile(str(path), "rb") as file:
            return bytes(file.read())
    return Path(path).read_bytes()


def size(path: AnyPath) -> int:
    """Returns the length of a file in bytes."""
    if is_remote(path):
        with as_os_error(path) as gfile:
            return int(gfile.stat(str(path)).length)
    return os.path.getsize(path)


def write(path: AnyPath, payload: bytes) -> None:
    """Writes a file and forces it to disk; a kill may leave part of it."""
    if is_remote(path):
        remove(path)  # ram:// would append to the old content
        with as_os_error(path) as gfile, gfile.GFile(str(path), "wb") as file:
            file.write(payload)
        return
    with _naming(path), open(path, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: AnyPath, payload: bytes) -> None:
    """Replaces a file as a whole; see `replaced_file`."""
    with replaced_file(path) as partial:
        write(partial, payload)


@contextlib.contextmanager
def replaced_file(path: AnyPath, unique: str = "") -> Iterator[str]:
    """Yields another name to write to, and renames it to `path`: a kill leaves the old or the new.

    The block forces the file to disk. An error or Ctrl-C in it leaves no partial file. `unique`
    becomes part of the name, for files that several processes may write at a time. On an object
    store the rename is a copy, which appears only when it is whole.
    """
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f"{PARTIAL}{unique}{name}")
    try:
        remove(partial)  # a link would be written through
        yield partial
        rename(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(partial)
        raise
    fsync(folder or os.curdir)


def append(path: AnyPath, payload: bytes) -> None:
    """Appends to a file, and creates it when there is none.

    Afterwards the payload has left this process, so a kill cannot lose it. A crash of the machine
    can, until `fsync`.
    """
    if is_remote(path):
        # An object cannot grow: it is written again.
        write_atomically(path, (read(path) if exists(path) else b"") + payload)
        return
    with _naming(path), open(path, "ab") as file:
        file.write(payload)


def rename(path: AnyPath, new: AnyPath) -> None:
    """Renames a file, replacing an existing one; or a directory, on a local disk."""
    if is_remote(path):
        with as_os_error(path) as gfile:
            gfile.rename(str(path), str(new), overwrite=True)
    else:
        os.replace(path, new)


def fsync(path: AnyPath) -> None:
    """Forces a local file, or the entries of a local directory, to disk."""
    # Windows cannot, and an object store keeps what it has accepted.
    if is_remote(path) or os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with _naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: AnyPath) -> None:
    """Removes a file, or a directory with its contents, if it exists.

    Of a symbolic link only the link is removed.
    """
    if not is_remote(path) and os.path.islink(path):
        os.remove(path)
        return
    if not exists(path):
        return
    if is_remote(path):
        with as_os_error(path) as gfile:
            remove_any = gfile.rmtree if gfile.isdir(str(path)) else gfile.remove
            remove_any(str(path))
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


@contextlib.contextmanager
def as_os_error(path: AnyPath) -> Iterator[Any]:
    """Yields `tf.io.gfile`, whose errors become OSErrors that name the path."""
    import tensorflow as tf  # seconds: only where it is needed

    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"There is no {path}.") from error
    except tf.errors.PermissionDeniedError as error:
        raise PermissionError(f"{path}: {one_line(error.message)}") from error
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {one_line(error.message)}") from error


@contextlib.contextmanager
def _naming(path: AnyPath) -> Iterator[None]:
    """Adds the path to an error of an open file, which lacks it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_writable(folder: str, flag: str) -> None:
    """Creates a folder if there is none, and checks that files can be written into it.

    A remote one is only created. `flag` is what the user gave, such as `--output=a/b.csv`, for the
    ConfigurationError if that fails.
    """
    try:
        make_directories(folder)
        if not is_remote(folder):
            # Permissions are not enough: some file systems accept no files.
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise ConfigurationError(
            f"{flag} cannot be written: {folder}: {error.strerror or error}. Choose another place."
        ) from error


def folder_of(path: str) -> str:
    """Returns the folder of a file."""
    return os.path.dirname(path) or os.curdir

"""Reads and writes one checkpoint, all or nothing: a directory `step_00001000`.

It holds `arrays.npz` and `manifest.json`, with the size and the sha256 of the arrays' file, and a
sha256 of itself: no bit of either can change unnoticed. On an object store the manifest, written
last and removed first, is the commit mark: a directory without one is not a checkpoint there.
"""

import errno
import hashlib
import io
import json
import math
import re
import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.utils import files
from trainers.utils.errors import DataError
from trainers.utils.errors import one_line
from trainers.utils.files import AnyPath

Arrays = dict[str, NDArray[Any]]

_ARRAYS = "arrays.npz"
_MANIFEST = "manifest.json"
_KEYS = {"step", "file", "bytes", "sha256", "metrics"}
_SEAL = "manifest_sha256"
_NAME = re.compile(r"step_(\d{8,})")
# Prefixes of what a killed run may leave behind, on a local disk.
_UNFINISHED = ".partial-"
_REMOVED = ".removed-"


class DamagedCheckpointError(DataError):
    """A checkpoint that exists but is not what was saved."""


def checkpoint_path(directory: AnyPath, step: int, prefix: str = "") -> str:
    return files.join(directory, f"{prefix}step_{step:08d}")


def checkpoint_steps(directory: AnyPath) -> list[int]:
    """Returns the steps of all finished checkpoints, ascending, damaged or not."""
    matches = [_NAME.fullmatch(name) for name in files.list_names(directory)]
    steps = sorted(int(match[1]) for match in matches if match)
    if not files.is_remote(directory):
        return steps
    return [step for step in steps if _is_committed(directory, step)]


def write_checkpoint(
    directory: AnyPath, step: int, arrays: Arrays, metrics: dict[str, float] | None = None
) -> None:
    """Writes a checkpoint; one of the same step, which must be damaged, is replaced.

    `metrics`, of an evaluation at that step, go into the manifest.
    """
    payload = _to_bytes(arrays)
    manifest = {
        "step": step,
        "file": _ARRAYS,
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "metrics": metrics or {},
    }
    _remove_leftovers(directory)
    is_remote = files.is_remote(directory)
    if is_remote:
        remove_checkpoint(directory, step)
    path = checkpoint_path(directory, step, "" if is_remote else _UNFINISHED)
    files.make_directories(path)
    files.write(files.join(path, _ARRAYS), payload)
    files.write_atomically(files.join(path, _MANIFEST), _sealed(manifest))  # the last one
    if not is_remote:
        files.fsync(path)
        remove_checkpoint(directory, step)
        files.rename(path, checkpoint_path(directory, step))
        files.fsync(directory)


def read_checkpoint(directory: AnyPath, step: int) -> Arrays:
    """Returns the arrays of a checkpoint.

    Raises:
        DamagedCheckpointError: If it is not what was saved; the message says why, in one line.
        OSError: If it cannot be read for another reason, such as a lost connection. It may be
            whole: resuming from an older one would be wrong.
    """
    path = checkpoint_path(directory, step)
    manifest = read_manifest(directory, step)
    payload = _read(path, _ARRAYS)
    if len(payload) != manifest["bytes"]:
        raise DamagedCheckpointError(f"{len(payload)} bytes where {manifest['bytes']} were saved")
    if hashlib.sha256(payload).hexdigest() != manifest["sha256"]:
        raise DamagedCheckpointError("its sha256 is not the one that was saved")
    try:
        return _read_arrays(payload)
    except _DAMAGE as error:
        raise DamagedCheckpointError(f"{_ARRAYS} holds no arrays: {one_line(error)}") from error


def read_manifest(directory: AnyPath, step: int) -> dict[str, Any]:
    """Returns a checkpoint's manifest, or raises `DamagedCheckpointError`."""
    text = _read(checkpoint_path(directory, step), _MANIFEST)
    try:
        manifest = _unsealed(text)
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(f"{_MANIFEST} is garbled: {one_line(error)}") from error
    if manifest["step"] != step:
        raise DamagedCheckpointError(f"{_MANIFEST} is of step {manifest['step']}")
    return manifest


def remove_checkpoint(directory: AnyPath, step: int) -> None:
    """Removes a checkpoint so that a kill leaves it whole or not at all."""
    path = checkpoint_path(directory, step)
    if files.is_remote(directory):
        files.remove(files.join(path, _MANIFEST))
    elif files.exists(path):
        removed = checkpoint_path(directory, step, _REMOVED)
        files.rename(path, removed)
        path = removed
    files.remove(path)


def _remove_leftovers(directory: AnyPath) -> None:
    """Removes what a killed run left behind while it wrote or removed a checkpoint."""
    remote = files.is_remote(directory)
    for name in files.list_names(directory):
        match = _NAME.fullmatch(name)
        uncommitted = remote and match and not _is_committed(directory, int(match[1]))
        if uncommitted or name.startswith((_UNFINISHED, _REMOVED)):
            files.remove(files.join(directory, name))


def digest(arrays: Arrays) -> str:
    """Returns the sha256 over names, types, shapes and bytes of all arrays, by name."""
    total = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        header = json.dumps([name, value.dtype.str, value.shape])
        total.update(f"{header}\n".encode())
        total.update(value.tobytes())
    return total.hexdigest()


def _sealed(manifest: dict[str, Any]) -> bytes:
    """Returns the content of a manifest's file, with the sha256 of the content without that."""
    seal = hashlib.sha256(_to_json(manifest)).hexdigest()
    return _to_json({**manifest, _SEAL: seal})


def _unsealed(text: bytes) -> dict[str, Any]:
    """Returns the manifest in a file, of which each byte must be as written."""
    manifest = dict(json.loads(text).items())
    written = _to_json(manifest)
    seal = manifest.pop(_SEAL, None)
    if manifest.keys() != _KEYS:
        raise ValueError(f"expected {', '.join(sorted(_KEYS))}, found {', '.join(manifest)}")
    if seal is None:
        return manifest  # of an earlier release
    if text != written or seal != hashlib.sha256(_to_json(manifest)).hexdigest():
        raise ValueError("its sha256 is not the one that was saved")
    return manifest


def _to_json(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=2).encode()


def _is_committed(directory: AnyPath, step: int) -> bool:
    return files.exists(files.join(checkpoint_path(directory, step), _MANIFEST))


def _read(path: str, name: str) -> bytes:
    try:
        return files.read(files.join(path, name))
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{name} is missing") from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise DamagedCheckpointError(f"{name} is not a file") from error
    except OSError as error:
        if error.errno == errno.EIO:  # the disk has lost it
            raise DamagedCheckpointError(f"{name} cannot be read: {error.strerror}") from error
        raise


def _to_bytes(arrays: Arrays) -> bytes:
    for name, value in arrays.items():
        if value.dtype.hasobject:  # would be pickled, and could not be loaded safely
            raise TypeError(f"{name!r} holds Python objects and cannot be saved")
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(sorted(arrays.items()))
    # NumPy before 2.2 has no allow_pickle here: it would save it as an array.
    np.savez(buffer, **named)
    return buffer.getvalue()


_MAX_HEADER_BYTES = 2**14
# What a damaged archive makes zipfile and NumPy raise, and the checks of an archive here.
_DAMAGE = (
    *(zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, OSError),
    *(OverflowError, RuntimeError, KeyError, ValueError),
)


def _read_arrays(payload: bytes) -> Arrays:
    """Returns the arrays of a file of `numpy.savez`; raises one of `_DAMAGE` for another file."""
    arrays: Arrays = {}
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("expected arrays without compression")
            _check_header(archive, member)
            with archive.open(member) as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
            arrays[member.filename.removesuffix(".npy")] = array
    return arrays


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compares the size that a header declares, which NumPy would allocate, with the member's."""
    with archive.open(member) as stream:
        start = io.BytesIO(stream.read(_MAX_HEADER_BYTES))
    if np.lib.format.read_magic(start) != (1, 0):
        raise ValueError(f"{member.filename!r} has a header of another version than 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    if start.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(
            f"{member.filename!r} declares the shape {shape} in {member.file_size} bytes"
        )

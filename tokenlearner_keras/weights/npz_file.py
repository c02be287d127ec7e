"""Reads untrusted .npz files: nothing is unpickled, and sizes are checked before reading."""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokenlearner_keras.layers.common import check_positive_integer

#: The largest public ViT (H/14) takes 2.6 GB.
MAX_BYTES = 8 * 2**30

# Trained weights hardly compress; a file of this size may still hold zeros only.
_MAX_COMPRESSION = 100
_ALWAYS_ALLOWED_BYTES = 64 * 2**20
_MAX_HEADER_BYTES = 16 * 2**10
_CHUNK_BYTES = 2**20
_ENCRYPTED = 0x1
#: What a damaged archive makes zipfile raise.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    UnicodeError,
)


class _Member(NamedTuple):
    """One array of the archive, as its header declares it."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    header_bytes: int

    @property
    def name(self) -> str:
        return self.info.filename.removesuffix(".npy")

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(path: str | Path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Returns all arrays by name, which may take `max_bytes` in memory; see `iterate_npz`."""
    return dict(iterate_npz(path, max_bytes))


def iterate_npz(path: str | Path, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the names and arrays of an `.npz` file one by one.

    All declared sizes are checked before the first array is read. ValueError says what a file that
    is not an `.npz` file seems to be and what to do.
    """
    path = Path(path)
    check_positive_integer(max_bytes, "max_bytes")
    _check_zip(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_archive(archive, path, max_bytes)
            members = [_read_header(archive, info, path) for info in archive.infolist()]
            for member in members:
                yield member.name, _read_array(archive, member)
    except _DAMAGE as error:
        raise _error(path, f"is damaged or incomplete ({error}). Download it again") from error


def _error(path: Path, problem: str) -> ValueError:
    return ValueError(f"{path} {problem}.")


def _check_zip(path: Path) -> None:
    if not path.exists():
        hint = ""
        if "://" in str(path) or str(path).startswith(("https:/", "gs:/")):
            hint = " This is an address: tk.download_weights(address) returns a path."
        raise FileNotFoundError(
            f"There is no file {path}.{hint} tk.download_weights fetches public weights by name."
        )
    if not path.is_file():
        raise _error(path, "is not a file. Give the path of the .npz file of weights itself")
    with path.open("rb") as file:
        problem = _kind_of_file(file.read(512))
    if problem is not None:
        raise _error(path, f"is not an .npz file of weights: {problem}")


def _check_archive(archive: zipfile.ZipFile, path: Path, max_bytes: int) -> None:
    """Checks what the archive's directory declares, before any member is opened."""
    infos, file_bytes = archive.infolist(), path.stat().st_size
    problem = _kind_of_archive([info.filename for info in infos])
    if problem is not None:
        raise _error(path, f"is not an .npz file of weights: {problem}")
    for info in infos:
        supported = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not supported or info.flag_bits & _ENCRYPTED:
            raise _error(
                path,
                f"holds {info.filename!r} encrypted or compressed in a way that NumPy does not "
                "write. Save the arrays again with numpy.savez",
            )
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise _error(
            path,
            f"declares {total} bytes of arrays, more than max_bytes={max_bytes}. If you trust "
            "it and have the memory, read it with numpy.load and pass the arrays to "
            "tk.load_reference_params",
        )
    packed = sum(info.compress_size for info in infos)
    if packed > file_bytes or total > max(_ALWAYS_ALLOWED_BYTES, _MAX_COMPRESSION * file_bytes):
        raise _error(
            path,
            f"declares {total} bytes of arrays in a file of {file_bytes}: no trained weights "
            "compress so far. It is damaged or made to exhaust memory. Take the file from "
            "its publisher again",
        )


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> _Member:
    """Reads the header of one array and compares it with the size of the member."""
    with archive.open(info) as stream:
        start = io.BytesIO(stream.read(_MAX_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(start)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read(start)
    except Exception as error:  # NumPy's parser of the header's text raises many kinds.
        raise _error(
            path, f"holds {info.filename!r} with a broken header ({error}). Download it again"
        ) from error
    if dtype.hasobject:
        raise _error(
            path,
            f"holds {info.filename!r}, an array of Python objects, which only unpickling could "
            "read; that can run any code. Save plain arrays of numbers",
        )
    member = _Member(info, shape, is_fortran, dtype, start.tell())
    declared = member.header_bytes + member.num_bytes
    if min(shape, default=0) < 0 or declared != info.file_size:
        raise _error(
            path,
            f"holds {info.filename!r}, whose header declares shape {shape} of {dtype} "
            f"({declared} bytes with the header) in {info.file_size} bytes. Download it again",
        )
    return member


def _read_array(archive: zipfile.ZipFile, member: _Member) -> np.ndarray:
    """Reads an array in chunks; zipfile compares the checksum at the end of the member."""
    buffer = np.empty(member.num_bytes, "uint8")
    filled = 0
    with archive.open(member.info) as stream:
        stream.read(member.header_bytes)
        while filled < member.num_bytes:
            chunk = stream.read(min(_CHUNK_BYTES, member.num_bytes - filled))
            if not chunk:
                raise EOFError(f"{member.info.filename!r} ends early")
            buffer[filled : filled + len(chunk)] = np.frombuffer(chunk, "uint8")
            filled += len(chunk)
    return np.ndarray(
        member.shape, member.dtype, buffer.data, order="F" if member.is_fortran else "C"
    )


_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"

_KINDS = (
    (
        b"\x93NUMPY",
        "it is a single NumPy array (.npy). Save the arrays by name with numpy.savez",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "it is an HDF5 file. Keras weights (.weights.h5) load with model.load_weights",
    ),
    (b"\x1f\x8b", "it is compressed with gzip. Unpack it first (gunzip)"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file. Run git lfs pull"),
    (
        b"\x80",
        "it is a pickle, as of torch.save, which can run any code when read. Save its arrays "
        "with numpy.savez, in a place where you trust it",
    ),
)
_WEB_PAGE = (
    "the address gave a web page, not the file. Check the address in a browser; some sites "
    "ask for a login or offer another link for the download itself"
)


def _kind_of_file(start: bytes) -> str | None:
    """Returns what a file that begins with `start` is and what to do; None for a zip."""
    if start.startswith(_ZIP):
        return None
    if not start:
        return "it is empty. The download broke off; delete it and download again"
    if start.startswith(_EMPTY_ZIP):
        return "it is an archive without arrays"
    for signature, kind in _KINDS:
        if start.startswith(signature):
            return kind
    # Storage services answer a wrong address with XML.
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        return _WEB_PAGE
    if start[8:10] == b'{"':
        return "it is a safetensors file. Save its arrays with numpy.savez"
    return "it does not begin as one. Check the path, or download it again"


def _kind_of_archive(names: Sequence[str]) -> str | None:
    """Returns what an archive of these members is and what to do; None for an `.npz`."""
    endings = {name.rsplit("/", 1)[-1] for name in names}
    if "data.pkl" in endings:
        return (
            "it is a PyTorch file of torch.save, which holds a pickle. Save its arrays with "
            "numpy.savez"
        )
    if "model.weights.h5" in endings:
        return "it is a Keras model (.keras). Load it with keras.models.load_model"
    others = [name for name in names if not name.endswith(".npy")]
    if others:
        return f"it is an archive with {others[0]!r}, which is not a NumPy array"
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        return f"it holds {twice!r} more than once. Download it again"
    return None

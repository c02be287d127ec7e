"""Reads the arrays of a checkpoint: nothing is unpickled, and no more memory taken than its bytes.

A checkpoint is saved without compression, so that each array is as long as its part of the file.
(Weights from elsewhere are read by `tokenlearner_keras.weights.npz_file`, which takes compressed
ones, too; listing checkpoints shall not wait for Keras, which that package imports.)
"""

import io
import math
import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_HEADER_BYTES = 2**14
# What a damaged archive makes zipfile and NumPy raise.
_DAMAGE = (
    *(zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, OSError),
    *(OverflowError, RuntimeError, KeyError),
)


def read_arrays(payload: bytes) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a file that `numpy.savez` has written, by name.

    Args:
        payload: The bytes of the file.

    Raises:
        ValueError: If it is no such file, or is damaged; the message says why.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            members = archive.infolist()
            if any(each.compress_type != zipfile.ZIP_STORED for each in members):
                raise ValueError("expected arrays without compression")
            for each in members:
                _check_header(archive, each)
            return {each.filename.removesuffix(".npy"): _read(archive, each) for each in members}
    except _DAMAGE as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compares the size that an array's header declares with that of the member."""
    with archive.open(member) as stream:
        start = io.BytesIO(stream.read(_MAX_HEADER_BYTES))
    if np.lib.format.read_magic(start) != (1, 0):
        raise ValueError(f"{member.filename!r} has a header of another version than 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    declared = start.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{member.filename!r} holds Python objects")
    if min(shape, default=0) < 0 or declared != member.file_size:
        raise ValueError(
            f"{member.filename!r} declares the shape {shape} in {member.file_size} bytes"
        )


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array

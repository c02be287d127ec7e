"""`.npz` files that are made to do harm."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_HUGE = 10**13


class _Touching:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.marker,)


def hostile_arrays(marker: Path) -> dict[str, bytes]:
    """Returns the bytes of each file by its kind.

    Args:
        marker: What code in them would write.
    """
    named: dict[str, Any] = {
        "Transformer/encoder_norm/scale": np.array([_Touching(marker)], dtype=object)
    }
    buffer = io.BytesIO()
    np.savez(buffer, **named)
    return {
        "an array of pickled objects": buffer.getvalue(),
        "a pickle by itself": pickle.dumps(_Touching(marker)),
        "a header that declares 40 TB": _zip({"a.npy": _header((_HUGE,)) + bytes(64)}),
        "a shape below 0": _zip({"a.npy": _header((-1, 4)) + bytes(64)}),
        "1 GiB of zeros, compressed": _zip({"a.npy": _header((2**28,)) + bytes(2**30)}, True),
        "a member outside": _zip({"../../a.npy": _header((4,)) + bytes(15)}),
        "a web page": b"<!doctype html><title>Sign in</title>" * 99,
        "half of an archive": buffer.getvalue()[: len(buffer.getvalue()) // 2],
        "nothing": b"",
    }


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def _zip(members: dict[str, bytes], compressed: bool = False) -> bytes:
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()

"""Arrays and images that are made to do harm."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_HUGE = 10**13
_BOMB_SIDE = 60_000


class _Touching:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.marker,)


def hostile_arrays(marker: Path) -> dict[str, bytes]:
    """Returns the bytes of `.npz` files by kind; code in them would write the marker."""
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


def bombs() -> dict[str, bytes]:
    """Returns images of few bytes that claim 3.6 billion pixels, by the ending of the name."""
    return {".png": _png(), ".jpg": _jpeg(), ".bmp": _bmp()}


def _png() -> bytes:
    header = struct.pack(">IIBBBBB", _BOMB_SIDE, _BOMB_SIDE, 1, 0, 0, 0, 0)
    row = bytes(1 + _BOMB_SIDE // 8)
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(row) for _ in range(_BOMB_SIDE)), packer.flush()])
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )  # fmt: skip


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG")
    payload = bytearray(buffer.getvalue())
    frame = payload.index(b"\xff\xc0")
    payload[frame + 5 : frame + 9] = struct.pack(">HH", _BOMB_SIDE, _BOMB_SIDE)
    return bytes(payload)


def _bmp() -> bytes:
    size = 54 + 4
    header = b"BM" + struct.pack("<IHHI", size, 0, 0, 54)
    # From the top downwards, which a height below 0 says.
    sides = (_BOMB_SIDE, -_BOMB_SIDE)
    return header + struct.pack("<IiiHHIIiiII", 40, *sides, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(4)

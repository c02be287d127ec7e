"""Images of a few bytes that claim to hold 3.6 billion pixels."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIDE = 60_000


def bombs() -> dict[str, bytes]:
    """Returns the bytes of a bomb of each format, by the ending of its name."""
    return {".png": _png(), ".jpg": _jpeg(), ".bmp": _bmp()}


def _png() -> bytes:
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0)
    row = bytes(1 + SIDE // 8)
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(row) for _ in range(SIDE)), packer.flush()])
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
    payload[frame + 5 : frame + 9] = struct.pack(">HH", SIDE, SIDE)
    return bytes(payload)


def _bmp() -> bytes:
    size = 54 + 4
    header = b"BM" + struct.pack("<IHHI", size, 0, 0, 54)
    # From the top downwards, which a height below 0 says.
    return header + struct.pack("<IiiHHIIiiII", 40, SIDE, -SIDE, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(4)

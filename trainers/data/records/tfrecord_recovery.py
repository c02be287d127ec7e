"""Finds the records of a damaged TFRecord file that can still be read.

Where the chain of records breaks off, the search continues at the next possible header: eight
bytes of a length that fits into the file, followed by its checksum. What lies between is lost.
A lost record keeps a place in the list, so that all others keep their numbers.
"""

import functools
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

HEADER_LENGTH = 12
FOOTER_LENGTH = 4
_CHUNK = 2**20


def lost_at(offset: int) -> int:
    """Returns the entry in a list of offsets for a record that is lost at a byte."""
    return -1 - offset


def recovered_offsets(
    stream: IO[bytes], end: int, expected_count: int | None
) -> NDArray[np.int64] | None:
    """Returns the first byte of each record with a whole header, (count,) int64.

    `end` is the length of the file. A lost record has `lost_at` in its place; without an
    `expected_count` each unreadable stretch counts as one. None if there are more records than
    expected: it is another file.
    """
    offsets: list[int] = []
    stretches: list[int] = []  # positions in `offsets` of the first lost record of each
    offset = 0
    while offset < end:
        length = _length_at(stream, offset, end)
        if length is not None:
            offsets.append(offset)
            offset += HEADER_LENGTH + length + FOOTER_LENGTH
            continue
        stretches.append(len(offsets))
        offsets.append(lost_at(offset))
        offset = _next_header(stream, offset + 1, end)
    if expected_count is None:
        return np.array(offsets, np.int64)
    missing = expected_count - len(offsets)
    if missing < 0:
        return None
    # Those after the last stretch count from the end of the file.
    place = stretches[-1] if stretches else len(offsets)
    lost = offsets[place] if stretches else lost_at(end)
    return np.array([*offsets[:place], *[lost] * missing, *offsets[place:]], np.int64)


def _length_at(stream: IO[bytes], offset: int, end: int) -> int | None:
    """Returns the length of the record at a byte; None if none begins there or it does not fit."""
    stream.seek(offset)
    header = stream.read(HEADER_LENGTH)
    if len(header) < HEADER_LENGTH:
        return None
    length = int.from_bytes(header[:8], "little")
    fits = offset + HEADER_LENGTH + length + FOOTER_LENGTH <= end
    if fits and _checksum(header[:8]) == int.from_bytes(header[8:], "little"):
        return length
    return None


def _next_header(stream: IO[bytes], begin: int, end: int) -> int:
    """Returns the next byte at which a record begins, or the end of the file."""
    for offset in _candidates(stream, begin, end):
        if _length_at(stream, offset, end) is not None:
            return offset
    return end


def _candidates(stream: IO[bytes], begin: int, end: int) -> Iterator[int]:
    """Yields the positions where eight bytes are a length that fits, a few among millions."""
    while begin + HEADER_LENGTH + FOOTER_LENGTH <= end:
        stream.seek(begin)
        content = np.frombuffer(stream.read(_CHUNK + 7), np.uint8)
        if len(content) < 8:
            return
        windows = np.lib.stride_tricks.sliding_window_view(content, 8)
        lengths = np.ascontiguousarray(windows).view("<u8")[:, 0]
        # Examples are never empty, so long runs of zeros can be skipped.
        fits = (lengths > 0) & (lengths <= end - begin)
        yield from map(int, begin + np.flatnonzero(fits))
        begin += len(windows)


def _checksum(header: bytes) -> int:
    fast = masked_crc32c_if_fast(header)
    return masked_crc32c(header) if fast is None else fast


POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
MASK_DELTA = 0xA282EAD8
WORD = 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """Returns the masked CRC-32C, computed in Python; meant for a few bytes."""
    table = _table()
    crc = WORD
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return _mask(crc ^ WORD)


def masked_crc32c_if_fast(data: bytes) -> int | None:
    """Returns the masked CRC-32C, or None without a compiled implementation.

    For whole records Python would take longer than everything else together.
    """
    compiled = _compiled()
    return None if compiled is None else _mask(compiled(data))


def _mask(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & WORD


@functools.cache
def _table() -> tuple[int, ...]:
    return tuple(_table_entry(byte) for byte in range(256))


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


@functools.cache
def _compiled() -> Callable[[bytes], int] | None:
    try:
        import google_crc32c
    except ImportError:
        warnings.warn(
            "checksums of records are not verified: pip install google-crc32c", stacklevel=2
        )
        return None
    return google_crc32c.value  # type: ignore[no-any-return]

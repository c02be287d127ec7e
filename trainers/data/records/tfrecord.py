"""Reads TFRecord files in any order, by an index that is built once and cached.

A TFRecord file is a chain of records: 8 bytes length, 4 bytes checksum of the length,
the data, 4 bytes checksum of the data; little endian, checksums are masked CRC-32C.
"""

import hashlib
import struct
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import google_crc32c
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.utils import files
from trainers.utils.cache import cache_directory
from trainers.utils.cache import is_intact
from trainers.utils.cache import replaced_file
from trainers.utils.errors import DataError
from trainers.utils.lock import locked
from trainers.utils.reporting import progress_bar

INDEX_VERSION = 2
PREPARE_AGAIN = "Prepare or copy the file again."
_SCANNED_AT_A_TIME = 32
_HEADER_LENGTH = 12
_FOOTER_LENGTH = 4
_CHUNK = 2**20


class RecordFiles:
    """TFRecord files as one long list of records.

    Args:
        paths: the files, in the order of the list.
        expected_counts: number of records of each file, None if not known.
        hint: what to do about a damaged file, for messages.
        recover: whether damaged files are accepted: only reading a lost record fails. Where the
            counts are not known, each unreadable stretch counts as one record.

    Raises:
        DataError: a file is damaged or has another number of records.
    """

    def __init__(
        self,
        paths: Sequence[str],
        expected_counts: Sequence[int] | None = None,
        hint: str = PREPARE_AGAIN,
        recover: bool = False,
    ) -> None:
        self._paths = tuple(paths)
        self._hint = hint
        # None if damaged files are not accepted; empty if the counts are not known.
        self._recovered_counts = tuple(expected_counts or ()) if recover else None
        self._offsets, counts = self._cached_offsets()
        if expected_counts is not None:
            _check_counts(paths, counts, expected_counts)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, index: int) -> bytes:
        """Returns the data of a record; raises DataError if it is damaged."""
        path, _ = self._position(index)
        offset = int(self._offsets[index])
        if offset < 0:
            raise DataError(
                f"{path} is damaged: the record at byte {_lost_at(offset)} is lost. {self._hint}"
            )
        with _open(path) as stream:
            length = _data_length(stream, path, offset, self._hint)
            data = stream.read(length + _FOOTER_LENGTH)
        checksum = int.from_bytes(data[length:], "little")
        if len(data) < length + _FOOTER_LENGTH or masked_crc32c(data[:length]) != checksum:
            raise DataError(
                f"{path} is damaged: the record at byte {offset} is cut off or its "
                f"checksum is wrong. {self._hint}"
            )
        return data[:length]

    def identity(self, index: int) -> str:
        """Names a record for messages: the file, the record's number in it and its first byte."""
        path, number = self._position(index)
        offset = int(self._offsets[index])
        return f"{path}, record {number} at byte {offset if offset >= 0 else _lost_at(offset)}"

    def _position(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"Record {index} of {len(self)} does not exist.")
        file_number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._paths[file_number], int(index - self._starts[file_number])

    def _cached_offsets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the first byte of each record, and the number of records of each file."""
        path = self._index_path()
        with locked(path.with_suffix(".lock")):
            if is_intact(path):
                with np.load(path, allow_pickle=False) as arrays:
                    return arrays["offsets"], arrays["counts"]
            parts = self._scan_all()
            counts = np.array([len(part) for part in parts], np.int64)
            offsets = np.concatenate([np.zeros(0, np.int64), *parts])
            with replaced_file(path) as temporary, temporary.open("wb") as stream:
                np.savez(stream, offsets=offsets, counts=counts)
        return offsets, counts

    def _index_path(self) -> Path:
        """Names the index by all that changes when a file does, and by how files are searched."""
        digest = hashlib.sha256(f"{INDEX_VERSION} {self._recovered_counts}\n".encode())
        for path in self._paths:
            status = tf.io.gfile.stat(path)
            digest.update(f"{path}\0{status.length}\0{status.mtime_nsec}\n".encode())
        return cache_directory() / "record_index" / f"{digest.hexdigest()[:24]}.npz"

    def _scan_all(self) -> list[NDArray[np.int64]]:
        """Scans files in parallel, because a remote one is mostly waiting."""
        with (
            progress_bar("files searched for records", len(self._paths)) as advance,
            ThreadPoolExecutor(_SCANNED_AT_A_TIME) as pool,
        ):

            def scanned(number: int) -> NDArray[np.int64]:
                offsets = self._scan(number)
                advance()
                return offsets

            return list(pool.map(scanned, range(len(self._paths))))

    def _scan(self, number: int) -> NDArray[np.int64]:
        path = self._paths[number]
        if self._recovered_counts is not None:
            expected = self._recovered_counts[number] if self._recovered_counts else None
            offsets = _recovered_offsets(path, expected)
            if offsets is not None:
                return offsets
            # With too many records it is another file, which is reported as without recovery.
        return scan_offsets(path, self._hint)


def scan_offsets(path: str, hint: str = PREPARE_AGAIN) -> NDArray[np.int64]:
    """Returns the first byte of each record of a file, (count,) int64; reads only the headers.

    Raises DataError if the chain of records breaks off or a header is damaged.
    """
    end = tf.io.gfile.stat(path).length
    offsets = []
    offset = 0
    with _open(path) as stream:
        while offset < end:
            offsets.append(offset)
            length = _data_length(stream, path, offset, hint)
            offset += _HEADER_LENGTH + length + _FOOTER_LENGTH
    if offset != end:
        raise DataError(
            f"{path} is cut off: its last record ends at byte {offset}, the file at {end}. {hint}"
        )
    return np.array(offsets, np.int64)


def _recovered_offsets(path: str, expected_count: int | None) -> NDArray[np.int64] | None:
    """Returns the first byte of each record of a damaged file, (count,) int64.

    Where the chain of records breaks off, the search continues at the next possible header: eight
    bytes of a length that fits into the file, followed by its checksum. What lies between is lost.
    A lost record has `_lost_at` in its place, so that all others keep their numbers. Without an
    `expected_count` each unreadable stretch counts as one record. None if there are more records
    than expected: it is another file.
    """
    end = tf.io.gfile.stat(path).length
    offsets: list[int] = []
    stretches: list[int] = []  # positions in `offsets` of the first lost record of each
    offset = 0
    with _open(path) as stream:
        while offset < end:
            length = _length_at(stream, offset, end)
            if length is not None:
                offsets.append(offset)
                offset += _HEADER_LENGTH + length + _FOOTER_LENGTH
                continue
            stretches.append(len(offsets))
            offsets.append(_lost_at(offset))
            offset = _next_header(stream, offset + 1, end)
    if expected_count is None:
        return np.array(offsets, np.int64)
    missing = expected_count - len(offsets)
    if missing < 0:
        return None
    # Those after the last stretch count from the end of the file.
    place = stretches[-1] if stretches else len(offsets)
    lost = offsets[place] if stretches else _lost_at(end)
    return np.array([*offsets[:place], *[lost] * missing, *offsets[place:]], np.int64)


def _next_header(stream: IO[bytes], begin: int, end: int) -> int:
    """Returns the next byte at which a record begins, or the end of the file."""
    for offset in _candidates(stream, begin, end):
        if _length_at(stream, offset, end) is not None:
            return offset
    return end


def _candidates(stream: IO[bytes], begin: int, end: int) -> Iterator[int]:
    """Yields the positions where eight bytes are a length that fits, a few among millions."""
    while begin + _HEADER_LENGTH + _FOOTER_LENGTH <= end:
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


def _check_counts(paths: Sequence[str], counts: NDArray[np.int64], expected: Sequence[int]) -> None:
    for path, count, wanted in zip(paths, counts, expected, strict=True):
        if count != wanted:
            raise DataError(
                f"{path} has {count} records, the description of the data set says "
                f"{wanted}. Prepare or copy the data set again."
            )


def _lost_at(offset: int) -> int:
    """Returns the entry in a list of offsets for a record that is lost at a byte, and back."""
    return -1 - offset


def _data_length(stream: IO[bytes], path: str, offset: int, hint: str) -> int:
    length = _length_at(stream, offset)
    if length is None:
        raise DataError(
            f"{path} is damaged: no record begins at byte {offset}. Is it an "
            f"uncompressed TFRecord file? {hint}"
        )
    return length


def _length_at(stream: IO[bytes], offset: int, end: int | None = None) -> int | None:
    """Returns the length of the data of the record at a byte.

    None if no record begins there, or if it would end after `end`.
    """
    stream.seek(offset)
    header = stream.read(_HEADER_LENGTH)
    if len(header) < _HEADER_LENGTH:
        return None
    length, checksum = struct.unpack("<QI", header)
    if end is not None and offset + _HEADER_LENGTH + length + _FOOTER_LENGTH > end:
        return None
    return int(length) if masked_crc32c(header[:8]) == checksum else None


def masked_crc32c(data: bytes) -> int:
    """Returns the checksum of a TFRecord file."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _open(path: str) -> IO[bytes]:
    if files.is_remote(path):
        return tf.io.gfile.GFile(path, "rb")
    return open(path, "rb")

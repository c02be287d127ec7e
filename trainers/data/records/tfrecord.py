"""Reads TFRecord files in any order, by an index that is built once and cached.

A TFRecord file is a chain of records: 8 bytes length, 4 bytes checksum of the length,
the data, 4 bytes checksum of the data; little endian, checksums are masked CRC-32C.
"""

import hashlib
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.data.records.tfrecord_recovery import FOOTER_LENGTH
from trainers.data.records.tfrecord_recovery import HEADER_LENGTH
from trainers.data.records.tfrecord_recovery import lost_at
from trainers.data.records.tfrecord_recovery import masked_crc32c
from trainers.data.records.tfrecord_recovery import masked_crc32c_if_fast
from trainers.data.records.tfrecord_recovery import recovered_offsets
from trainers.utils.cache import cache_directory
from trainers.utils.cache import exclusive
from trainers.utils.cache import is_intact
from trainers.utils.cache import replaced_file
from trainers.utils.cache import write_checksum
from trainers.utils.errors import DataError
from trainers.utils.reporting import progress_bar

INDEX_VERSION = 2
PREPARE_AGAIN = "Prepare or copy the file again."
_SCANNED_AT_A_TIME = 32


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
        scan = _Scan(hint, tuple(expected_counts or ()) if recover else None)
        self._offsets, counts = _cached_offsets(self._paths, scan)
        if expected_counts is not None:
            _check_counts(self._paths, counts, expected_counts)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, index: int) -> bytes:
        """Returns the data of a record; raises DataError if it is damaged."""
        path, _ = self._position(index)
        offset = int(self._offsets[index])
        if offset < 0:
            raise DataError(
                f"{path} is damaged: the record at byte {lost_at(offset)} is lost. {self._hint}"
            )
        with _open(path) as stream:
            stream.seek(offset)
            return _read_record(stream, path, offset, self._hint)

    def identity(self, index: int) -> str:
        """Names a record for messages: the file, the record's number in it and its first byte."""
        path, number = self._position(index)
        offset = int(self._offsets[index])
        return f"{path}, record {number} at byte {offset if offset >= 0 else lost_at(offset)}"

    def _position(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"Record {index} of {len(self)} does not exist.")
        file_number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._paths[file_number], int(index - self._starts[file_number])


def scan_offsets(path: str, hint: str = PREPARE_AGAIN) -> NDArray[np.int64]:
    """Returns the first byte of each record of a file, (count,) int64; reads only the headers.

    Raises DataError if the chain of records breaks off or a header is damaged.
    """
    end = tf.io.gfile.stat(path).length
    offsets = []
    offset = 0
    with _open(path) as stream:
        while offset < end:
            stream.seek(offset)
            length = _data_length(stream.read(HEADER_LENGTH), path, offset, hint)
            offsets.append(offset)
            offset += HEADER_LENGTH + length + FOOTER_LENGTH
    if offset != end:
        raise DataError(
            f"{path} is cut off: its last record ends at byte {offset}, the file at {end}. {hint}"
        )
    return np.array(offsets, np.int64)


def _open(path: str) -> IO[bytes]:
    if "://" in path:
        stream: IO[bytes] = tf.io.gfile.GFile(path, "rb")
        return stream
    return open(path, "rb")


def _data_length(header: bytes, path: str, offset: int, hint: str) -> int:
    if len(header) == HEADER_LENGTH:
        length, checksum = struct.unpack("<QI", header)
        if masked_crc32c(header[:8]) == checksum:
            return int(length)
    raise DataError(
        f"{path} is damaged: no record begins at byte {offset}. Is it an "
        f"uncompressed TFRecord file? {hint}"
    )


def _read_record(stream: IO[bytes], path: str, offset: int, hint: str) -> bytes:
    length = _data_length(stream.read(HEADER_LENGTH), path, offset, hint)
    data = stream.read(length + FOOTER_LENGTH)
    checksum = masked_crc32c_if_fast(data[:length])
    whole = len(data) == length + FOOTER_LENGTH
    if not whole or checksum not in (None, int.from_bytes(data[length:], "little")):
        raise DataError(
            f"{path} is damaged: the record at byte {offset} is cut off or its "
            f"checksum is wrong. {hint}"
        )
    return data[:length]


def _check_counts(paths: Sequence[str], counts: NDArray[np.int64], expected: Sequence[int]) -> None:
    for path, count, wanted in zip(paths, counts, expected, strict=True):
        if count != wanted:
            raise DataError(
                f"{path} has {count} records, the description of the data set says "
                f"{wanted}. Prepare or copy the data set again."
            )


class _Scan(NamedTuple):
    """How files are searched for records.

    Attributes:
        hint: what to do about a damaged file, for messages.
        recovered_counts: number of records of each file, empty if not known; None if damaged
            files are not accepted.
    """

    hint: str
    recovered_counts: tuple[int, ...] | None


def _cached_offsets(
    paths: tuple[str, ...], scan: _Scan
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    path = _index_path(paths, scan)
    with exclusive(path.with_suffix(".lock")):
        if is_intact(path):
            with np.load(path, allow_pickle=False) as arrays:
                return arrays["offsets"], arrays["counts"]
        parts = _scan_all(paths, scan)
        counts = np.array([len(part) for part in parts], np.int64)
        offsets = np.concatenate([np.zeros(0, np.int64), *parts])
        with replaced_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, offsets=offsets, counts=counts)
        write_checksum(path)
    return offsets, counts


def _scan_all(paths: tuple[str, ...], scan: _Scan) -> list[NDArray[np.int64]]:
    """Scans files in parallel, because a remote one is mostly waiting."""
    with (
        progress_bar("files searched for records", len(paths)) as advance,
        ThreadPoolExecutor(_SCANNED_AT_A_TIME) as pool,
    ):

        def scanned(number: int) -> NDArray[np.int64]:
            offsets = _scan_one(paths[number], number, scan)
            advance()
            return offsets

        return list(pool.map(scanned, range(len(paths))))


def _scan_one(path: str, number: int, scan: _Scan) -> NDArray[np.int64]:
    if scan.recovered_counts is None:
        return scan_offsets(path, scan.hint)
    expected = scan.recovered_counts[number] if scan.recovered_counts else None
    with _open(path) as stream:
        offsets = recovered_offsets(stream, tf.io.gfile.stat(path).length, expected)
    # With too many records it is another file, which is reported as without recovery.
    return scan_offsets(path, scan.hint) if offsets is None else offsets


def _index_path(paths: tuple[str, ...], scan: _Scan) -> Path:
    """Names the index by all that changes when a file does, and by how files are searched."""
    digest = hashlib.sha256(f"{INDEX_VERSION} {scan.recovered_counts}\n".encode())
    for path in paths:
        status = tf.io.gfile.stat(path)
        digest.update(f"{path}\0{status.length}\0{status.mtime_nsec}\n".encode())
    return cache_directory() / "record_index" / f"{digest.hexdigest()[:24]}.npz"

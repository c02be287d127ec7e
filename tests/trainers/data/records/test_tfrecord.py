"""TFRecord files by record number, and damage told by file and byte."""

import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from tests.helpers.processes import PATIENCE
from trainers.data.records import tfrecord
from trainers.data.records.tfrecord import RecordFiles
from trainers.data.records.tfrecord import masked_crc32c
from trainers.data.records.tfrecord import scan_offsets
from trainers.utils.errors import DataError


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))
    paths = [str(tmp_path / f"shard{number}") for number in range(3)]
    for path, count in zip(paths, (3, 0, 2), strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(count):
                writer.write(f"{Path(path).name} {number} ".encode() * 100 * number)
    return paths


def test_known_checksum() -> None:
    # The CRC-32C of "123456789" is 0xE3069283.
    crc = 0xE3069283
    mask = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == mask


def test_every_record_is_read(shards: list[str]) -> None:
    files = RecordFiles(shards, [3, 0, 2])
    expected = [record.numpy() for record in tf.data.TFRecordDataset(shards)]
    assert [files.read(index) for index in range(len(files))] == expected
    assert files.identity(4) == f"{shards[2]}, record 1 at byte 16"
    with pytest.raises(IndexError):
        files.read(5)
    with pytest.raises(IndexError):
        files.read(-1)


def test_index_is_built_once(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    RecordFiles(shards)
    monkeypatch.setattr(tfrecord, "scan_offsets", None)
    assert len(RecordFiles(shards)) == 5


def test_files_are_searched_at_the_same_time(
    shards: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    together = threading.Barrier(len(shards))

    def scan_together(path: str, hint: str) -> NDArray[np.int64]:
        together.wait(timeout=PATIENCE)
        return scan_offsets(path, hint)

    monkeypatch.setattr(tfrecord, "scan_offsets", scan_together)
    files = RecordFiles(shards, [3, 0, 2])
    assert [files.identity(index) for index in (0, 3)] == [
        f"{shards[0]}, record 0 at byte 0",
        f"{shards[2]}, record 0 at byte 0",
    ]
    assert "files searched for records: 3 of 3" in capsys.readouterr().err


def test_changed_file_is_indexed_again(shards: list[str]) -> None:
    RecordFiles(shards)
    with tf.io.TFRecordWriter(shards[1]) as writer:
        writer.write(b"new")
    assert RecordFiles(shards).read(3) == b"new"


def test_damaged_index_is_built_again(shards: list[str], tmp_path: Path) -> None:
    RecordFiles(shards)
    (index,) = (tmp_path / "cache").rglob("*.npz")
    index.write_bytes(b"nonsense")
    assert len(RecordFiles(shards)) == 5


def test_wrong_count(shards: list[str]) -> None:
    with pytest.raises(DataError, match=r"shard0 has 3 records.*says\s4"):
        RecordFiles(shards, [4, 0, 2])


def test_cut_off_file(shards: list[str]) -> None:
    path = Path(shards[0])
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="shard0 is cut off"):
        scan_offsets(shards[0])


def test_damaged_header(shards: list[str]) -> None:
    path = Path(shards[2])
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"shard2 is damaged.*byte 0"):
        scan_offsets(shards[2])


def test_damaged_data_is_found(shards: list[str]) -> None:
    files = RecordFiles(shards)
    path = Path(shards[2])
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        files.read(4)

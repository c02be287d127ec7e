"""What can be read of a damaged TFRecord file is, and the others keep their numbers."""

import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reliability.damaged_shards import OF_FILES
from benchmarks.reliability.damaged_shards import WITHOUT_TRACE
from benchmarks.reliability.damaged_shards import frame
from trainers.data.records.tfrecord import RecordFiles
from trainers.utils.errors import DataError

COUNT = 5
RECORDS = [bytes([number]) * (40 + number) for number in range(COUNT)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))


def _write(folder: Path, payload: bytes) -> list[str]:
    """Writes a damaged file between two good ones."""
    good = b"".join(map(frame, RECORDS))
    paths = [folder / f"shard{number}" for number in range(3)]
    for path, content in zip(paths, (good, payload, good), strict=True):
        path.write_bytes(content)
    return list(map(str, paths))


def _readable(files: RecordFiles) -> dict[int, bytes]:
    found = {}
    for number in range(len(files)):
        try:
            found[number] = files.read(number)
        except DataError as error:
            assert "shard1" in str(error) and "at byte" in str(error)
            assert "shard1" in files.identity(number) and "at byte" in files.identity(number)
    return found


@pytest.mark.parametrize("number", [0, 2, COUNT - 1])
@pytest.mark.parametrize("name", OF_FILES)
def test_all_others_are_read(tmp_path: Path, name: str, number: int) -> None:
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        damaged = OF_FILES[name](RECORDS, number, random.Random(seed))
        paths = _write(folder, damaged.payload)
        lost = {COUNT + each for each in damaged.lost}
        expected = {each: RECORDS[each % COUNT] for each in range(3 * COUNT) if each not in lost}
        assert _readable(RecordFiles(paths, [COUNT] * 3, recover=True)) == expected
        if name in WITHOUT_TRACE:
            continue
        # Where nobody knows how many there were, a stretch that is lost counts as one.
        found = RecordFiles(paths, recover=True)
        assert list(_readable(found).values()) == list(expected.values())
        assert len(found) == len(expected) + 1


@pytest.mark.parametrize("name", OF_FILES)
def test_by_default_the_file_is_named(tmp_path: Path, name: str) -> None:
    damaged = OF_FILES[name](RECORDS, 2, random.Random(0))
    paths = _write(tmp_path, damaged.payload)
    with pytest.raises(DataError, match=r"shard1.*(at byte|at 0\.|has \d+ records)"):
        files = RecordFiles(paths, [COUNT] * 3)
        for number in range(len(files)):
            files.read(number)


def test_two_damages(tmp_path: Path) -> None:
    framed = [bytearray(frame(data)) for data in RECORDS]
    framed[1][0] ^= 1
    framed[3][0] ^= 1
    paths = _write(tmp_path, b"".join(map(bytes, framed)))
    files = RecordFiles(paths, [COUNT] * 3, recover=True)
    assert sorted(set(range(3 * COUNT)) - set(_readable(files))) == [COUNT + 1, COUNT + 3]


def test_a_long_garbled_stretch(tmp_path: Path) -> None:
    garbled = np.random.default_rng(0).bytes(2**21) + bytes(2**21)
    paths = _write(tmp_path, frame(RECORDS[0]) + garbled + frame(RECORDS[4]))
    files = RecordFiles(paths, [COUNT] * 3, recover=True)
    assert sorted(set(range(3 * COUNT)) - set(_readable(files))) == [6, 7, 8]


def test_more_records_than_there_were(tmp_path: Path) -> None:
    paths = _write(tmp_path, b"".join(map(frame, [*RECORDS, *RECORDS])))
    with pytest.raises(DataError, match="shard1 has 10 records, the description .* says 5"):
        RecordFiles(paths, [COUNT] * 3, recover=True)


def test_the_index_of_a_search_that_recovers_is_another_one(tmp_path: Path) -> None:
    damaged = OF_FILES["a bit of the length"](RECORDS, 2, random.Random(0))
    paths = _write(tmp_path, damaged.payload)
    RecordFiles(paths, [COUNT] * 3, recover=True)
    with pytest.raises(DataError, match="no record begins at byte"):
        RecordFiles(paths, [COUNT] * 3)

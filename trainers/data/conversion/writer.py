"""Writes video files into TFRecord shards, each complete or absent.

A finished shard is recorded in `SPLIT.conversion.json`, together with the rows that were left out;
a conversion that was killed and starts again skips it. The bytes of a shard depend only on the
rows, the videos and the options, so the files end up the same.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import as_completed
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.configuration.data_options import RecordsConfig
from trainers.data.conversion.video_list import VideoRow
from trainers.data.conversion.video_list import mark_missing_files
from trainers.data.records.manifest import shard_name
from trainers.data.video_files import FRAMES_PER_SECOND
from trainers.data.video_files import MIN_SIDE
from trainers.data.video_files import read_frames
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError


@dataclass(frozen=True)
class ConversionOptions:
    """How videos become records; raises ConfigurationError if a value is out of range."""

    num_shards: int
    frames_per_second: float = FRAMES_PER_SECOND
    min_side: int = MIN_SIDE  # pixels of the shorter side; smaller videos keep theirs
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        for name, flag, smallest, largest in (
            ("num_shards", "shards", 1, 99_999),
            ("frames_per_second", "frames_per_second", 0.01, 1000),
            ("min_side", "min_side", 1, 65_500),
            ("jpeg_quality", "jpeg_quality", 1, 100),
        ):
            value = getattr(self, name)
            if not smallest <= value <= largest:
                raise ConfigurationError(
                    f"--{flag}: expected {smallest} to {largest}, received {value}."
                )


@dataclass
class ShardResult:
    """What a finished shard holds."""

    fingerprint: str  # of its rows
    num_examples: int = 0
    num_bytes: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)  # number of a row, reason


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read_state(path: str) -> tuple[str, dict[int, ShardResult]]:
    """Reads the fingerprint of a conversion, and its finished shards by number."""
    try:
        state = json.loads(files.read(path))
        results = {int(key): _result(value) for key, value in state["shards"].items()}
        return str(state["fingerprint"]), results
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is damaged ({error}). Remove it; the conversion then starts again."
        ) from error


def _result(value: dict[str, Any]) -> ShardResult:
    skipped = [(int(number), str(reason)) for number, reason in value["skipped"]]
    return ShardResult(
        str(value["fingerprint"]), int(value["num_examples"]), int(value["num_bytes"]), skipped
    )


@dataclass
class Conversion:
    """One split on its way into shards.

    Raises ConfigurationError if there are more shards than rows, or the folder holds shards of the
    split with other options, or from a list that has no shard in common with this one.
    """

    csv_name: str  # for messages
    rows: list[VideoRow]
    label_numbers: dict[str, int]
    output: str
    split: str
    options: ConversionOptions
    skip_bad: bool  # leaves out a row that cannot be read, instead of raising an error

    def __post_init__(self) -> None:
        if self.options.num_shards > len(self.rows):
            raise ConfigurationError(
                f"--shards: expected at most the {len(self.rows)} rows of {self.csv_name}, "
                f"received {self.options.num_shards}."
            )
        self._state_path = files.join(self.output, f"{self.split}.conversion.json")
        # Neither the files' location nor `skip_bad` changes a good record.
        self._fingerprint = _digest(
            [len(self.rows), sorted(self.label_numbers.items()), asdict(self.options)]
        )
        self.results, self._changed = self._load_results()
        self._stopped = threading.Event()

    def look_for_files(self) -> None:
        """Gives rows a `problem` whose file is missing, except in finished shards."""
        needed = {row.number for shard in self._to_do() for row in self._rows_of(shard)}
        self.rows = mark_missing_files(self.rows, needed)

    @property
    def rows_done(self) -> int:
        return len(self.rows) - sum(len(self._rows_of(number)) for number in self._to_do())

    @property
    def skipped(self) -> list[tuple[int, str]]:
        """Number and reason of each row that was left out, in order."""
        return sorted(row for result in self.results.values() for row in result.skipped)

    @property
    def num_examples(self) -> int:
        return sum(result.num_examples for result in self.results.values())

    def run(self, workers: int, advance: Callable[[], None]) -> None:
        """Writes the missing shards, and tries again the rows that others left out.

        It writes `workers` shards at the same time, and calls `advance` after each row.
        """
        for number in self._changed:
            files.remove(self._path_of(number))  # old and new shards must not look like one set
        with ThreadPoolExecutor(workers) as pool:
            futures = {pool.submit(self._finish_shard, n, advance): n for n in self._to_do()}
            try:
                for future in as_completed(futures):
                    self.results[futures[future]] = future.result()
                    self._save_results()
            except BaseException:
                self._stopped.set()  # the other shards stop at their next row
                pool.shutdown(cancel_futures=True)
                raise

    def _to_do(self) -> list[int]:
        """Returns the shards that do not exist, or lack rows."""
        results = ((n, self.results.get(n)) for n in range(self.options.num_shards))
        return [number for number, result in results if result is None or result.skipped]

    def _finish_shard(self, number: int, advance: Callable[[], None]) -> ShardResult:
        if number in self.results:
            if self._lacks_the_same(number):
                for _ in self._rows_of(number):
                    advance()
                return self.results[number]
            files.remove(self._path_of(number))  # its noted result is no longer true
        return self._write_shard(number, advance)

    def _lacks_the_same(self, number: int) -> bool:
        """Returns whether all rows that a shard lacks are still unreadable; renews the reasons."""
        result = self.results[number]
        lacking = {number for number, _ in result.skipped}
        skipped: list[tuple[int, str]] = []
        for row in self._rows_of(number):
            if row.number in lacking:
                self._record(row, skipped)
        if len(skipped) < len(lacking):
            return False
        result.skipped = skipped
        return True

    def _write_shard(self, number: int, advance: Callable[[], None]) -> ShardResult:
        result = ShardResult(self._fingerprint_of(number))
        path = self._path_of(number)
        with files.as_os_error(path), files.replaced_file(path) as partial:
            with tf.io.TFRecordWriter(partial) as writer:
                for row in self._rows_of(number):
                    record = self._record(row, result.skipped)
                    if record is not None:
                        writer.write(record)
                        result.num_examples += 1
                    advance()
            files.fsync(partial)
        result.num_bytes = files.size(path)
        return result

    def _record(self, row: VideoRow, skipped: list[tuple[int, str]]) -> bytes | None:
        """Returns the record of a row; with `skip_bad` a bad row is added to `skipped`."""
        if self._stopped.is_set():
            raise DataError("stopped, because another shard failed")
        try:
            if row.problem:
                raise DataError(row.problem)
            frames = read_frames(
                row.path,
                row.start,
                row.end,
                frames_per_second=self.options.frames_per_second,
                min_side=self.options.min_side,
            )
            return make_record(row, frames, self.label_numbers, self.options)
        except DataError as error:
            if not self.skip_bad:
                raise DataError(
                    f"{self.csv_name}, row {row.number}: {error}. Repair the file, correct the "
                    "row, or leave out such rows with --skip_bad; the same command resumes."
                ) from error
            skipped.append((row.number, str(error)))
            return None

    def _rows_of(self, number: int) -> list[VideoRow]:
        total, shards = len(self.rows), self.options.num_shards
        return self.rows[number * total // shards : (number + 1) * total // shards]

    def _path_of(self, number: int) -> str:
        return files.join(self.output, shard_name(self.split, number, self.options.num_shards))

    def _fingerprint_of(self, number: int) -> str:
        rows = self._rows_of(number)
        return _digest([[row.number, row.name, row.start, row.end, row.labels] for row in rows])

    def _load_results(self) -> tuple[dict[int, ShardResult], list[int]]:
        """Returns the finished shards, and the numbers of those whose rows have changed."""
        if not files.exists(self._state_path):
            return {}, []
        of_all, results = _read_state(self._state_path)
        if of_all == self._fingerprint:
            there = {n: result for n, result in results.items() if self._is_whole(n, result)}
            same = {n: r for n, r in there.items() if r.fingerprint == self._fingerprint_of(n)}
            if same or not there:
                return same, sorted(there.keys() - same.keys())
        raise ConfigurationError(
            f"{self.output} holds {self.split} shards of another list, label map or other "
            f"options than {self.csv_name} and these. Use another --output, or remove "
            f"{self.split}.* there. Where the name of a class was wrong, also remove the other "
            "splits, labels.txt and dataset.json."
        )

    def _is_whole(self, number: int, result: ShardResult) -> bool:
        # The size is enough: the training checks what it reads, and names a damaged file to remove.
        path = self._path_of(number)
        return files.exists(path) and result.num_bytes == files.size(path)

    def _save_results(self) -> None:
        shards = {str(number): asdict(result) for number, result in self.results.items()}
        state = {"fingerprint": self._fingerprint, "shards": shards}
        text = json.dumps(state, indent=1, sort_keys=True) + "\n"
        files.write_atomically(self._state_path, text.encode())


MAX_BYTES = 2_000_000_000  # of the 2 GiB of a protocol buffer; the rest is for names and labels
_BYTES_AROUND_A_FRAME = 32  # lengths and types of the enclosing messages


def make_record(
    row: VideoRow,
    frames: Iterable[NDArray[np.uint8]],
    label_numbers: dict[str, int],
    options: ConversionOptions,
) -> bytes:
    """Returns a `tf.train.SequenceExample` as DMVR reads it; equal arguments give equal bytes.

    There is at least one frame. Raises DataError if frames differ in size, or are too many.
    """
    keys = RecordsConfig()
    example = tf.train.SequenceExample()
    context = example.context.feature
    numbers = sorted(label_numbers[label] for label in row.labels)
    names = sorted(row.labels, key=label_numbers.__getitem__)
    images = example.feature_lists.feature_list[keys.image_key].feature
    height, width = _add_frames(images, frames, options.jpeg_quality)
    start = row.start or 0.0
    duration = len(images) / options.frames_per_second
    context[keys.label_key].int64_list.value.extend(numbers)
    context["clip/label/text"].bytes_list.value.extend(name.encode() for name in names)
    context["clip/start/timestamp"].int64_list.value.append(round(start * 1e6))
    context["clip/end/timestamp"].int64_list.value.append(round((start + duration) * 1e6))
    context["video/filename"].bytes_list.value.append(row.name.encode())
    context["image/frame_rate"].float_list.value.append(options.frames_per_second)
    context["image/height"].int64_list.value.append(height)
    context["image/width"].int64_list.value.append(width)
    return example.SerializeToString(deterministic=True)


def _add_frames(images: Any, frames: Iterable[NDArray[np.uint8]], quality: int) -> tuple[int, int]:
    """Adds one JPEG per frame; returns the height and width of all of them."""
    size: tuple[int, ...] = ()
    num_bytes = 0
    for pixels in frames:
        size = size or pixels.shape[:2]
        if pixels.shape[:2] != size:
            raise DataError(
                f"frame {len(images)} has {pixels.shape[0]} x {pixels.shape[1]} pixels, those "
                f"before it {size[0]} x {size[1]}; a video must keep its size"
            )
        with tf.device("CPU"):
            encoded = tf.io.encode_jpeg(pixels, quality=quality).numpy()
        num_bytes += len(encoded) + _BYTES_AROUND_A_FRAME
        if num_bytes > MAX_BYTES:
            raise DataError(
                f"a record holds at most {MAX_BYTES} bytes, of this video {len(images)} frames; "
                "set start and end, a row for each part"
            )
        images.add().bytes_list.value.append(encoded)
    height, width = size
    return height, width

"""Writes video files into TFRecord shards, each complete or absent.

Shard k of n holds the rows k * N / n to (k + 1) * N / n of the list, in its order. It is
written under another name, forced to disk, renamed, and then recorded in
`SPLIT.conversion.json`, together with the rows that were left out. A conversion that was
killed and starts again skips the recorded shards. The bytes of a shard depend only on
the rows, the videos and the options, so the files end up the same.

Rows that were left out are tried again. A shard is rewritten if one of them can be read now,
if its rows have been corrected in the list, or if its file is truncated. A file of the right
size is accepted: the training checks what it reads, and names a damaged file to remove.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.configuration.data_options import RecordsConfig
from trainers.data.conversion.options import ConversionOptions
from trainers.data.conversion.video_list import VideoRow
from trainers.data.conversion.video_list import mark_missing_files
from trainers.data.records.manifest import shard_name
from trainers.data.video_files import read_frames
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError


@dataclass
class ShardResult:
    """What a finished shard holds; `skipped` has number and reason of each row left out."""

    fingerprint: str  # of its rows
    num_examples: int = 0
    num_bytes: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)


def fingerprint(content: Any) -> str:
    """Returns a hash of content that JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_state(path: str) -> tuple[str, dict[int, ShardResult]]:
    """Reads the fingerprint of a conversion, and its finished shards by number."""
    try:
        state = json.loads(files.read(path))
        results = {int(key): _result(value) for key, value in state["shards"].items()}
        return str(state["fingerprint"]), results
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is damaged ({error}). Remove it; the conversion then begins anew."
        ) from error


def write_state(path: str, of_all: str, results: dict[int, ShardResult]) -> None:
    """Writes what `read_state` reads."""
    shards = {str(number): asdict(result) for number, result in results.items()}
    text = json.dumps({"fingerprint": of_all, "shards": shards}, indent=1, sort_keys=True) + "\n"
    files.write_atomically(path, text.encode())


def _result(value: dict[str, Any]) -> ShardResult:
    skipped = [(int(number), str(reason)) for number, reason in value["skipped"]]
    return ShardResult(
        str(value["fingerprint"]), int(value["num_examples"]), int(value["num_bytes"]), skipped
    )


class Conversion:
    """One split on its way into shards.

    Args:
        csv_name: the list, for messages.
        rows: all rows of the list.
        label_numbers: from the name of a class to its number.
        output: the folder, which exists.
        split: "train", "validation" or "test".
        options: how videos become records.
        skip_bad: whether to leave out a row that cannot be read, instead of raising an error.

    Raises:
        ConfigurationError: more shards than rows, or the folder holds shards of the split
            with other options, or from a list that has no shard in common with this one.
    """

    def __init__(
        self,
        csv_name: str,
        rows: list[VideoRow],
        label_numbers: dict[str, int],
        output: str,
        split: str,
        options: ConversionOptions,
        skip_bad: bool,
    ) -> None:
        if options.num_shards > len(rows):
            raise ConfigurationError(
                f"--shards: expected at most the {len(rows)} rows of {csv_name}, received "
                f"{options.num_shards}."
            )
        self.csv_name = csv_name
        self.rows = rows
        self.label_numbers = label_numbers
        self.output = output
        self.split = split
        self.options = options
        self.skip_bad = skip_bad
        self._state_path = files.join(output, f"{split}.conversion.json")
        # Neither the files' location nor `skip_bad` changes a good record.
        self._fingerprint = fingerprint([len(rows), sorted(label_numbers.items()), asdict(options)])
        self.results, self._changed = self._load_results()
        self._stopped = threading.Event()

    def look_for_files(self) -> None:
        """Gives rows a `problem` whose file is missing, except in finished shards."""
        needed = {row.number for shard in self._to_do() for row in self._rows_of(shard)}
        self.rows = mark_missing_files(self.rows, needed)

    @property
    def rows_done(self) -> int:
        """Returns the number of rows in shards that `run` need not touch."""
        return len(self.rows) - sum(len(self._rows_of(number)) for number in self._to_do())

    @property
    def skipped(self) -> list[tuple[int, str]]:
        """Returns number and reason of each row that was left out, in order."""
        return sorted(row for result in self.results.values() for row in result.skipped)

    @property
    def num_examples(self) -> int:
        """Returns the number of records in finished shards."""
        return sum(result.num_examples for result in self.results.values())

    def run(self, workers: int, advance: Callable[[], None]) -> None:
        """Writes the missing shards, and tries again the rows that others left out.

        Args:
            workers: shards to write at the same time, one thread each.
            advance: called after each row.

        Raises:
            DataError: a row cannot be read, and `skip_bad` is off.
            OSError: a shard cannot be written.
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
        rows = [row for row in self._rows_of(number) if row.number in lacking]
        skipped = []
        for row in rows:
            self._check_stopped()
            try:
                self._record(row)
            except DataError as error:
                skipped.append(self._left_out(row, error))
        if len(skipped) < len(lacking):
            return False
        result.skipped = skipped
        return True

    def _write_shard(self, number: int, advance: Callable[[], None]) -> ShardResult:
        result = ShardResult(self._fingerprint_of(number))
        path = self._path_of(number)
        with (
            files.as_os_error(path),
            _replaced(path) as partial,
            tf.io.TFRecordWriter(partial) as writer,
        ):
            for row in self._rows_of(number):
                self._check_stopped()
                try:
                    writer.write(self._record(row))
                    result.num_examples += 1
                except DataError as error:
                    result.skipped.append(self._left_out(row, error))
                advance()
        result.num_bytes = files.size(path)
        return result

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise DataError("stopped, because another shard failed")

    def _left_out(self, row: VideoRow, error: DataError) -> tuple[int, str]:
        """Returns number and reason of a row to leave out; raises an error without `skip_bad`."""
        if not self.skip_bad:
            raise DataError(
                f"{self.csv_name}, row {row.number}: {error}. Mend the file or correct the row, or "
                "leave out such rows with --skip_bad; the same command resumes."
            ) from error
        return row.number, str(error)

    def _record(self, row: VideoRow) -> bytes:
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

    def _rows_of(self, number: int) -> list[VideoRow]:
        total, shards = len(self.rows), self.options.num_shards
        return self.rows[number * total // shards : (number + 1) * total // shards]

    def _path_of(self, number: int) -> str:
        return files.join(self.output, shard_name(self.split, number, self.options.num_shards))

    def _fingerprint_of(self, number: int) -> str:
        rows = self._rows_of(number)
        return fingerprint([[row.number, row.name, row.start, row.end, row.labels] for row in rows])

    def _load_results(self) -> tuple[dict[int, ShardResult], list[int]]:
        """Returns the finished shards, and the numbers of those whose rows have changed."""
        if not files.exists(self._state_path):
            return {}, []
        of_all, results = read_state(self._state_path)
        if of_all == self._fingerprint:
            there = {n: result for n, result in results.items() if self._is_whole(n, result)}
            same = {n: r for n, r in there.items() if r.fingerprint == self._fingerprint_of(n)}
            if same or not there:
                return same, sorted(there.keys() - same.keys())
        raise ConfigurationError(
            f"{self.output} holds {self.split} shards of another list, label map or other "
            f"options than {self.csv_name} and these. Use another --output, or remove "
            f"{self.split}.* there. Where the name of a class was wrong, remove the other "
            "splits, labels.txt and dataset.json, too."
        )

    def _is_whole(self, number: int, result: ShardResult) -> bool:
        """Returns whether a shard exists with the size that was written."""
        path = self._path_of(number)
        return files.exists(path) and result.num_bytes == files.size(path)

    def _save_results(self) -> None:
        write_state(self._state_path, self._fingerprint, self.results)


@contextmanager
def _replaced(path: str) -> Iterator[str]:
    """Yields another name to write to, and renames it when the block succeeds."""
    folder, name = os.path.split(path)
    partial = files.join(folder, f".partial-{name}")
    try:
        yield partial
        files.fsync(partial)
        files.rename(partial, path)
        files.fsync(folder)
    finally:
        files.remove(partial)


MAX_BYTES = 2_000_000_000  # of the 2 GiB of a protocol buffer; the rest is for names and labels
_BYTES_AROUND_A_FRAME = 32  # lengths and types of the enclosing messages


def make_record(
    row: VideoRow,
    frames: Iterable[NDArray[np.uint8]],
    label_numbers: dict[str, int],
    options: ConversionOptions,
) -> bytes:
    """Returns a `tf.train.SequenceExample` as DMVR reads it; equal arguments give equal bytes.

    `frames` are (height, width, 3) each, at least one. Raises DataError if they differ in size, or
    are too many for one record.
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
    content: bytes = example.SerializeToString(deterministic=True)
    return content


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

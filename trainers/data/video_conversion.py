"""Video files into TFRecord shards that are complete or not there.

Shard k of n holds the rows k * N / n to (k + 1) * N / n of the list, in its order. It is
written under another name, forced to disk, renamed, and then noted in
`SPLIT.conversion.json`, together with the rows that were left out. A conversion that was
killed and starts again skips the shards that are noted; the bytes of a shard depend on
the rows, the videos and the options alone, so the files end up the same.
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

from trainers import files
from trainers.data.records_config import RecordsConfig
from trainers.data.video_dataset_files import shard_name
from trainers.data.video_files import FRAMES_PER_SECOND
from trainers.data.video_files import MIN_SIDE
from trainers.data.video_files import read_frames
from trainers.data.video_list import VideoRow
from trainers.errors import ConfigurationError
from trainers.errors import DataError


@dataclass(frozen=True)
class ConversionOptions:
    """How videos become records.

    Args:
        num_shards: files of the split.
        frames_per_second: frames taken from each second, 25 by default.
        min_side: pixels of the shorter side, 256 by default; smaller videos keep theirs.
        jpeg_quality: 1 to 100, 95 by default.

    Raises:
        ConfigurationError: a value is out of range.
    """

    num_shards: int
    frames_per_second: float = FRAMES_PER_SECOND
    min_side: int = MIN_SIDE
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        """Check every value."""
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
    """What a finished shard holds.

    Attributes:
        num_examples: its records.
        skipped: number and reason of each row that was left out.
    """

    num_examples: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)


class Conversion:
    """One split on its way into shards.

    Args:
        csv_name: the list, for messages.
        rows: of the list, all of them.
        label_numbers: from the name of a class to its number.
        output: the folder, which exists.
        split: "train", "validation" or "test".
        options: how videos become records.
        skip_bad: whether a row that cannot be read is left out; else it is an error.

    Raises:
        ConfigurationError: more shards than rows, or the folder holds shards of the split
            from another list or with other options.
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
        self._fingerprint = _fingerprint(rows, label_numbers, options)
        self.results = self._load_results()
        self._stopped = threading.Event()

    @property
    def rows_done(self) -> int:
        """How many rows lie in finished shards."""
        return sum(len(self._rows_of(number)) for number in self.results)

    @property
    def skipped(self) -> list[tuple[int, str]]:
        """Number and reason of each row that was left out, in order."""
        return sorted(row for result in self.results.values() for row in result.skipped)

    @property
    def num_examples(self) -> int:
        """Records in finished shards."""
        return sum(result.num_examples for result in self.results.values())

    def run(self, workers: int, advance: Callable[[], None]) -> None:
        """Writes the shards that are missing.

        Args:
            workers: shards that are written at the same time, by a thread each.
            advance: called after each row.

        Raises:
            DataError: a row cannot be read, and none may be left out.
        """
        missing = [n for n in range(self.options.num_shards) if n not in self.results]
        with ThreadPoolExecutor(workers) as pool:
            futures = {pool.submit(self._write_shard, n, advance): n for n in missing}
            try:
                for future in as_completed(futures):
                    self.results[futures[future]] = future.result()
                    self._save_results()
            except BaseException:
                self._stopped.set()  # the other shards end at their next row
                pool.shutdown(cancel_futures=True)
                raise

    def _write_shard(self, number: int, advance: Callable[[], None]) -> ShardResult:
        result = ShardResult()
        path = files.join(self.output, shard_name(self.split, number, self.options.num_shards))
        with _replaced(path) as partial, tf.io.TFRecordWriter(partial) as writer:
            for row in self._rows_of(number):
                if self._stopped.is_set():
                    raise DataError("stopped, because another shard failed")
                try:
                    writer.write(self._record(row))
                    result.num_examples += 1
                except DataError as error:
                    if not self.skip_bad:
                        raise DataError(
                            f"{self.csv_name}, row {row.number}: {error}. Mend the file, or "
                            "leave out such rows with --skip_bad; the same command goes on."
                        ) from error
                    result.skipped.append((row.number, str(error)))
                advance()
        return result

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

    def _load_results(self) -> dict[int, ShardResult]:
        if not files.exists(self._state_path):
            return {}
        state = _read_state(self._state_path)
        if state["fingerprint"] != self._fingerprint:
            raise ConfigurationError(
                f"{self.output} holds {self.split} shards of another list, label map or other "
                f"options than {self.csv_name} and these. Use another --output, or remove "
                f"{self.split}.*"
            )
        results = {}
        for key, value in state["shards"].items():
            path = shard_name(self.split, int(key), self.options.num_shards)
            if files.exists(files.join(self.output, path)):
                skipped = [(int(row), str(reason)) for row, reason in value["skipped"]]
                results[int(key)] = ShardResult(int(value["num_examples"]), skipped)
        return results

    def _save_results(self) -> None:
        shards = {str(number): asdict(result) for number, result in self.results.items()}
        state = {"fingerprint": self._fingerprint, "shards": shards}
        text = json.dumps(state, indent=1, sort_keys=True) + "\n"
        files.write_atomically(self._state_path, text.encode())


def make_record(
    row: VideoRow,
    frames: Iterable[NDArray[np.uint8]],
    label_numbers: dict[str, int],
    options: ConversionOptions,
) -> bytes:
    """Returns a `tf.train.SequenceExample` as DMVR reads it.

    Args:
        row: where the frames are from.
        frames: (height, width, 3) each, at least one.
        label_numbers: from the name of a class to its number.
        options: quality and frame rate.

    Returns:
        The record; the same arguments give the same bytes.
    """
    keys = RecordsConfig()
    example = tf.train.SequenceExample()
    context = example.context.feature
    numbers = sorted(label_numbers[label] for label in row.labels)
    names = sorted(row.labels, key=label_numbers.__getitem__)
    images = example.feature_lists.feature_list[keys.image_key].feature
    with tf.device("CPU"):
        for pixels in frames:
            height, width, _ = pixels.shape
            encoded = tf.io.encode_jpeg(pixels, quality=options.jpeg_quality).numpy()
            images.add().bytes_list.value.append(encoded)
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


@contextmanager
def _replaced(path: str) -> Iterator[str]:
    """Yields another name to write to, and renames it after a block that ends well."""
    folder, name = os.path.split(path)
    partial = files.join(folder, f".partial-{name}")
    try:
        yield partial
        files.force(partial)
        files.rename(partial, path)
        files.force(folder)
    finally:
        files.remove(partial)


def _fingerprint(
    rows: list[VideoRow], label_numbers: dict[str, int], options: ConversionOptions
) -> str:
    # Neither where the files lie nor whether bad rows are left out changes a good record.
    listed = [[row.number, row.name, row.start, row.end, row.labels] for row in rows]
    content = [listed, sorted(label_numbers.items()), asdict(options)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read_state(path: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(files.read(path))
        _ = state["fingerprint"], state["shards"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is damaged ({error}). Remove it; the conversion then begins anew."
        ) from error
    return state

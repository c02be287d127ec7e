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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import tensorflow as tf

from trainers import files
from trainers.data.conversion_options import ConversionOptions
from trainers.data.video_dataset_files import shard_name
from trainers.data.video_example import make_record
from trainers.data.video_files import read_frames
from trainers.data.video_list import VideoRow
from trainers.errors import ConfigurationError
from trainers.errors import DataError


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
            OSError: a shard cannot be written.
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
        with (
            files.as_os_error(path),
            _replaced(path) as partial,
            tf.io.TFRecordWriter(partial) as writer,
        ):
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
                f"{self.split}.* there. Where the name of a class was wrong, remove the other "
                "splits, labels.txt and dataset.json, too."
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

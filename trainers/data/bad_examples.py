"""Skips unreadable examples, up to `data.max_bad_examples`.

Whether an example is bad is found while reading it, from the bytes alone. So a batch remains a
function of (seed, step) and of the files: a run resumed after a kill sees what an uninterrupted
one sees, with nothing to save. A decoder fails only on the frames it decodes, so an example may
be bad in one epoch, and good in another that shows other frames of it.
"""

import json
import threading
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.data.decode_errors import first_damaged
from trainers.data.decode_errors import source_name
from trainers.data.sources import Source
from trainers.utils import files
from trainers.utils.errors import DataError
from trainers.utils.reporting import read_metrics


class BadExamplesFile:
    """A file with one JSON object per bad example: `source` (name/split), `index` and `reason`.

    The file is created with the first example.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._rows = read_metrics(path)
        if files.exists(path):
            # Without a line cut off by a kill, whose example will be met again.
            files.write_atomically(path, b"".join(map(_line, self._rows)))

    def reasons(self, source: str) -> dict[int, str]:
        """Returns the reasons of a source's (name/split) listed examples, by index."""
        return {row["index"]: row["reason"] for row in self._rows if row["source"] == source}

    def add(self, source: str, index: int, reason: str) -> None:
        """Lists an example, unless it is listed already."""
        row = {"source": source, "index": index, "reason": reason}
        with self._lock:
            if row not in self._rows:
                self._rows.append(row)
                files.append(self.path, _line(row))


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()


Element = dict[str, Any]
#: A function of an example's index, () int64, and any further arguments that returns an element.
Load = Callable[..., Element]

_OFFSET = "offset to the example that stands in"


class BadExamples:
    """Counts the bad examples of a source, and replaces them or leaves them out.

    Each is counted once, by each host its own. Batches are prepared ahead, so the count may
    include examples of steps that are still to come.

    Args:
        source: The source that is read.
        limit: How many different bad examples to skip; 0 stops at the first, and changes nothing
            in the pipeline.
        log: Called with a message for each bad example once.
    """

    def __init__(
        self,
        source: Source,
        limit: int,
        log: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.source = source
        self.limit = limit
        self._name = source_name(source)
        self._file: BadExamplesFile | None = None
        self._log = log
        self._lock = threading.Lock()
        self._failure: DataError | None = None
        self._reasons: dict[int, str] = {}

    @property
    def count(self) -> int:
        """Returns how many different bad examples have been met."""
        return len(self._reasons)

    @property
    def reasons(self) -> dict[int, str]:
        """Returns what is wrong with each, by index."""
        return dict(sorted(self._reasons.items()))

    def remember_in(self, file: BadExamplesFile) -> None:
        """Lists bad examples in a file, and counts those that an earlier run listed there."""
        with self._lock:
            self._reasons = {**file.reasons(self._name), **self._reasons}
        self.list_in(file)

    def list_in(self, file: BadExamplesFile) -> None:
        """Lists bad examples in a file, without counting those listed there already.

        An evaluation reads all its examples, so it meets the bad ones again each time.
        """
        with self._lock:
            self._file = file
            for index, reason in self._reasons.items():
                file.add(self._name, index, reason)

    def replacing(self, load: Load) -> Load:
        """Wraps `load` for training: the next good example takes the place of a bad one.

        Every tensor that `load` returns must depend on its arguments alone. The result fails if
        more than `limit` examples are bad; see `explain`.
        """
        if not self.limit:
            return load

        def load_good(index: tf.Tensor, *rest: tf.Tensor) -> Element:
            def attempt(offset: tf.Tensor) -> Element:
                place = (index + offset) % self.source.num_examples
                return {**load(place, *rest), _OFFSET: offset}

            # A separate dataset, because no other operation survives an error.
            attempts = tf.data.Dataset.range(self._max_attempts).map(attempt).ignore_errors()
            return self._noted(_first(attempts), index, self._note_replaced)

        return load_good

    def leaving_out(self, load: Load) -> Load:
        """Wraps `load` for evaluation: a bad example becomes zeros, its "mask" included.

        Its "index", if it has one, becomes -1.
        """
        if not self.limit:
            return load

        def load_or_pad(index: tf.Tensor, *rest: tf.Tensor) -> Element:
            attempt = tf.data.Dataset.from_tensors(index).map(
                lambda place: {**load(place, *rest), _OFFSET: tf.constant(0, tf.int64)}
            )
            element = _first(attempt.ignore_errors())
            if "index" in element:
                is_bad = element[_OFFSET] < 0
                element["index"] = tf.where(is_bad, tf.constant(-1, tf.int64), element["index"])
            return self._noted(element, index, self._note_left_out)

        return load_or_pad

    @contextmanager
    def explain(self) -> Iterator[None]:
        """Replaces an error of the input pipeline by the DataError that caused it, if there is one.

        It belongs inside `explain_data_failures`, which would name any bad example of the step.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self._failure is None:
                raise
            raise self._failure from error

    def report(self) -> str:
        """Returns one line for the end of a run, or "" without bad examples."""
        if not self._reasons:
            return ""
        listed = "; ".join(list(self.reasons.values())[:3])
        more = f"; and {self.count - 3} more" if self.count > 3 else ""
        return (
            f"{self._name}: {self.count} of {self.source.num_examples} examples cannot be "
            f"read, {self.limit} are allowed (data.max_bad_examples): {listed}{more}"
        )

    @property
    def _max_attempts(self) -> int:
        return min(self.limit + 1, self.source.num_examples)

    def _noted(self, element: Element, index: tf.Tensor, note: Callable[..., np.int64]) -> Element:
        """Calls `note` with index and offset, unless the example itself was good."""
        offset = element.pop(_OFFSET)

        def call() -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(note, [index, offset], tf.int64), ())

        noted = tf.cond(tf.equal(offset, 0), lambda: tf.constant(0, tf.int64), call)
        with tf.control_dependencies([noted]):
            return {name: tf.identity(value) for name, value in element.items()}

    def _note_replaced(self, index: np.int64, offset: np.int64) -> np.int64:
        attempts = self._max_attempts if offset < 0 else int(offset)
        for each in range(attempts):
            self._add((int(index) + each) % self.source.num_examples)
        if offset < 0:
            raise self._stop(f"no example of {self._name} can be read")
        return offset

    def _note_left_out(self, index: np.int64, offset: np.int64) -> np.int64:
        self._add(int(index))
        if self.count == self.source.num_examples:
            raise self._stop(f"no example of {self._name} can be read")
        return offset

    def _add(self, index: int) -> None:
        with self._lock:
            if index not in self._reasons:
                reason = self._reason(index)
                self._reasons[index] = reason
                if self._file:
                    self._file.add(self._name, index, reason)
                self._log(f"bad example {self.count} of {self.limit} allowed: {reason}")
            if self.count > self.limit:
                raise self._stop(
                    f"{self.count} examples of {self._name} cannot be read, more than "
                    f"data.max_bad_examples={self.limit}. The last: {self._reasons[index]}"
                )

    def _reason(self, index: int) -> str:
        found = first_damaged(self.source, [index])
        if found is None:
            # A fault of the program, or a passing one of the network: not to be skipped.
            raise self._stop(
                f"example {index} of {self._name} failed, but can be read. Start the same "
                "command again; with data.max_bad_examples=0 the error itself is shown"
            )
        return str(found)

    def _stop(self, message: str) -> DataError:
        self._failure = self._failure or DataError(message)
        return self._failure


def _first(examples: tf.data.Dataset) -> Element:
    """Returns the first element; without one, zeros with the offset -1."""
    spec = examples.element_spec
    zeros = {name: tf.zeros(part.shape, part.dtype) for name, part in spec.items()}
    nothing = tf.data.Dataset.from_tensors({**zeros, _OFFSET: tf.constant(-1, tf.int64)})
    element: Element = examples.concatenate(nothing).take(1).get_single_element()
    return element

"""Finds the damaged example behind an input-pipeline error, and names its file.

An operation that fails inside `tf.data` cannot say which file it was reading. The caller knows
which examples it may have read, since their order is a function of the step: they are decoded
again here.
"""

import os
import re
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice

import tensorflow as tf

from trainers.data.preprocessing.decoding import decode_image
from trainers.data.sources import Source
from trainers.utils.errors import DataError

#: What a damaged or missing file can raise. Interruptions, the end of the data and
#: a lack of memory are not failures of the data.
_DATA_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.DataLossError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)
_FILE_HINT = "restore the file or remove it from the data set"
_RECORD_HINT = "remove its file and convert again, or skip it by data.max_bad_examples=N"


@contextmanager
def explain_data_failures(source: Source, indices: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Replaces an error of the input pipeline by a `DataError` that names the file.

    Args:
        source: The source that the pipeline reads.
        indices: Called only after a failure; returns the indices of the examples that the
            block may have read. Duplicates and extra ones only cost time.

    Raises:
        DataError: One of these examples cannot be read. Any other error passes.
    """
    try:
        yield
    except _DATA_ERRORS:
        explanation = first_damaged(source, indices())
        if explanation is None:
            raise
        raise explanation from None


def first_damaged(source: Source, indices: Iterable[int]) -> DataError | None:
    """Reads examples in parallel; returns the error of the first that fails, None without one."""
    candidates = list(dict.fromkeys(map(int, indices)))
    if len(candidates) > 1:
        # With long videos it may take a while.
        message = f"looking for the damaged example of {source_name(source)} ..."
        print(message, file=sys.stderr, flush=True)
    threads = os.cpu_count() or 1
    remaining = iter(candidates)
    with ThreadPoolExecutor(threads) as pool:
        # A few at a time, so that little is read beyond the first damaged one.
        while chunk := list(islice(remaining, 4 * threads)):
            for found in pool.map(partial(_examine, source), chunk):
                if found is not None:
                    return found
    return None


def _examine(source: Source, index: int) -> DataError | None:
    with tf.device("CPU:0"):
        try:
            example = source.load(tf.constant(index, tf.int64))
        except DataError as error:
            return error  # raised inside tf.numpy_function; it names the file itself
        except (tf.errors.OpError, OSError, ValueError) as error:
            hint = _RECORD_HINT if _is_converted(source) else _FILE_HINT
            record = _record(source, index)
            identity = getattr(source, "identity", None)
            named = f"{identity(index)} ({record})" if identity else record
            return DataError(f"cannot read {named}: {plain_reason(error)}; {hint}")
        if "video" in example or "frames" in example:
            return _examine_video(source, index, example)
        try:
            decode_image(example)
        except tf.errors.OpError as error:
            return DataError(
                f"cannot decode image {_identity(example)} ({_record(source, index)}): "
                f"{plain_reason(error)}; remove or replace the file"
            )
    return None


def _examine_video(source: Source, index: int, example: dict[str, tf.Tensor]) -> DataError | None:
    frames = example["video"] if "video" in example else example["frames"]
    problem = _frames_problem(frames, decoded="video" in example)
    if problem is None:
        return None
    what, reason = problem
    hint = _RECORD_HINT if _is_converted(source) else "remove or replace the video"
    name = f"{_identity(example)} ({_record(source, index)})"
    return DataError(f"{what} {name}{reason}; {hint}")


def _frames_problem(frames: tf.Tensor, decoded: bool) -> tuple[str, str] | None:
    """Returns what is wrong with a video: the words before its name and those after it."""
    if len(frames) == 0:
        return "video", " holds no frames: expected at least one"
    if decoded:
        return None  # `load` has decoded it
    sizes = []
    for number, encoded in enumerate(frames):
        frame = f"frame {number}, counted from 0, of video"
        try:
            height, width, _ = decode_image({"encoded": encoded}).shape
        except tf.errors.OpError as error:
            return f"cannot decode {frame}", f": {plain_reason(error)}"
        sizes.append(f"{height}x{width}")
        if sizes[-1] != sizes[0]:
            expected = f": expected the height and width of frame 0, {sizes[0]}"
            return frame, f"{expected}, received {sizes[-1]}"
    return None


def _is_converted(source: Source) -> bool:
    """Returns whether examples are records made of other files, which cannot be removed singly."""
    return hasattr(source, "original")


def _record(source: Source, index: int) -> str:
    """Returns the number of a record, and the file it was made of if the source knows it."""
    original = getattr(source, "original", None)
    name = original(index) if original else None
    made_of = f", made of {name}" if name else ""
    return f"record {index} of {source_name(source)}{made_of}"


def _identity(example: dict[str, tf.Tensor]) -> str:
    if "identity" not in example:
        return "without a name"
    identity: bytes = example["identity"].numpy()
    return identity.decode("utf-8", errors="replace")


def source_name(source: Source) -> str:
    return f"{source.name}/{source.split}"


def plain_reason(error: Exception) -> str:
    """Returns TensorFlow's message without its node names."""
    text = str(getattr(error, "message", error))
    text = re.sub(r"\{\{.*?\}\}", "", text)
    text = re.sub(r"\[Op:\w+\].*", "", text, flags=re.DOTALL)
    # A Python function, such as the decoder of WebP, puts the type in front.
    text = re.sub(r"^\s*ValueError: ", "", text)
    # An assertion appends the compared values to its message.
    return text.strip().splitlines()[0].strip(" .") if text.strip() else "unknown"

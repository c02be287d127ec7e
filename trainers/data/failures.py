"""From an error inside the input pipeline to one message that names the file.

An operation that fails inside `tf.data` cannot say which file it was reading. The
order of the examples is a function of the step, though, so whoever iterates knows
which examples a failing step was made of: they are decoded again here, one by one,
and the first that fails is named. Nothing is paid for this while all goes well.
"""

import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from trainers.data.decoding import decode_image
from trainers.data.sources import Source
from trainers.errors import DataError

#: What a damaged or missing file can raise. Interruptions, the end of the data and
#: a lack of memory are no failures of the data.
_DATA_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.DataLossError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)


@contextmanager
def explain_data_failures(source: Source, indices: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Replace an error of the input pipeline by a `DataError` that names the file.

    ```python
    with explain_data_failures(source, lambda: examples_at_step(step, ...)):
        batch = next(iterator)
    ```

    Args:
        source: the source that the pipeline reads.
        indices: called after a failure only; returns the indices of the examples
            that the failing block may have read. Too many cost time, nothing else.

    Raises:
        DataError: if one of these examples cannot be read. Any other error passes.
    """
    try:
        yield
    except _DATA_ERRORS as error:
        explanation = describe_data_failure(error, source, indices())
        if explanation is None:
            raise
        raise explanation from None


def describe_data_failure(
    error: Exception, source: Source, indices: Iterable[int]
) -> DataError | None:
    """Find the example behind an error of the input pipeline.

    Args:
        error: what was caught.
        source: the source that the pipeline reads.
        indices: indices of the examples that may be at fault, in reading order.

    Returns:
        The error to raise instead, or None if the data is not at fault: the error is
        of another kind, or every example can be read.
    """
    if not isinstance(error, _DATA_ERRORS):
        return None
    for index in indices:
        explanation = _examine(source, int(index))
        if explanation is not None:
            return explanation
    return None


def _examine(source: Source, index: int) -> DataError | None:
    record = f"record {index} of {_source_name(source)}"
    with tf.device("CPU:0"):
        try:
            example = source.load(tf.constant(index, tf.int64))
        except DataError as error:
            return error  # raised inside tf.numpy_function; it names the file itself
        except (tf.errors.OpError, OSError, ValueError) as error:
            return DataError(
                f"cannot read {record}: {_reason(error)}; "
                "restore the file or remove it from the data set"
            )
        try:
            decode_image(example)
        except tf.errors.OpError as error:
            return DataError(
                f"cannot decode image {_identity(example)} ({record}): "
                f"{_reason(error)}; remove or replace the file"
            )
    return None


def _identity(example: dict[str, tf.Tensor]) -> str:
    if "identity" not in example:
        return "without a name"
    identity: bytes = example["identity"].numpy()
    return identity.decode("utf-8", errors="replace")


def _source_name(source: Source) -> str:
    """Return name/split, as far as the source has them."""
    name = str(getattr(source, "name", type(source).__name__))
    return "/".join([name, *([source.split] if hasattr(source, "split") else [])])


def _reason(error: Exception) -> str:
    """Return TensorFlow's words without its node names."""
    text = str(getattr(error, "message", error))
    text = re.sub(r"\{\{.*?\}\}", "", text)
    text = re.sub(r"\[Op:\w+\].*", "", text, flags=re.DOTALL)
    # An assertion adds the compared values below its own message.
    return text.strip().splitlines()[0].strip(" .") if text.strip() else "unknown"

"""Random access to ArrayRecord files, which support it natively."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError


class ArrayRecordFiles:
    """ArrayRecord files, with the `counts` of their records, as one list; see `RecordFiles`.

    Raises:
        ConfigurationError: the package `array-record` is not installed.
        DataError: the number of records differs from `counts`.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]) -> None:
        self._paths = tuple(paths)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._records = _open(self._paths)
        if len(self._records) != self._starts[-1]:
            raise DataError(
                f"{paths[0]} and its sister files have {len(self._records)} records, "
                f"the description of the data set says {self._starts[-1]}. Prepare or "
                "copy the data set again."
            )

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> bytes:
        return bytes(self._records[index])

    def identity(self, index: int) -> str:
        """Names a record for messages: the file and the record's number in it."""
        file_number = int(np.searchsorted(self._starts, index, side="right")) - 1
        number = int(index - self._starts[file_number])
        return f"{self._paths[file_number]}, record {number}"


def _open(paths: Sequence[str]) -> Any:
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError as error:
        raise ConfigurationError(
            "The data set is stored as ArrayRecord files; reading them needs the "
            f"package array-record, which could not be imported ({error}). Install it "
            "with pip install array-record, or prepare the data set as TFRecord files."
        ) from error
    return ArrayRecordDataSource(list(paths))

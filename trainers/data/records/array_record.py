"""Random access to ArrayRecord files, which support it natively."""

from collections.abc import Sequence

import numpy as np

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError


class ArrayRecordFiles:
    """ArrayRecord files, with the `counts` of their records, as one list; see `RecordFiles`.

    Raises ConfigurationError if the package `array-record` is not installed, and DataError if the
    number of records differs from `counts`.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]) -> None:
        try:
            from array_record.python.array_record_data_source import ArrayRecordDataSource
        except ImportError as error:
            raise ConfigurationError(
                "The data set is stored as ArrayRecord files; reading them needs the "
                f"package array-record, which could not be imported ({error}). Install it "
                "with pip install array-record, or prepare the data set as TFRecord files."
            ) from error
        self._paths = tuple(paths)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._records = ArrayRecordDataSource(list(paths))
        if len(self._records) != self._starts[-1]:
            raise DataError(
                f"{paths[0]} and its sibling shards have {len(self._records)} records, "
                f"the description of the data set says {self._starts[-1]}. Prepare or "
                "copy the data set again."
            )

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> bytes:
        return bytes(self._records[index])

    def identity(self, index: int) -> str:
        file_number = int(np.searchsorted(self._starts, index, side="right")) - 1
        number = int(index - self._starts[file_number])
        return f"{self._paths[file_number]}, record {number}"

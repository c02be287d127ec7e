"""Which records of a TFDS data set make up train, validation and test."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainers.errors import ConfigurationError

LARGE = 100_000  # from here on 1 % is enough for choosing a model


@dataclass(frozen=True)
class RecordRange:
    """A run of records of one TFDS split.

    Attributes:
        split: TFDS's name of the split.
        start: first record.
        stop: the record after the last one.
    """

    split: str
    start: int
    stop: int


def plan_splits(sizes: Mapping[str, int], test_has_labels: bool) -> dict[str, RecordRange]:
    """Maps our three splits to TFDS's.

    | TFDS has                | train       | validation  | test       |
    |-------------------------|-------------|-------------|------------|
    | train, validation, test | train       | validation  | test       |
    | train, test             | first 90 %  | last 10 %   | test       |
    | train, validation       | the rest    | last part   | validation |
    | train                   | first 80 %  | next 10 %   | last 10 %  |

    A test split without labels (ImageNet's) counts as missing. The "last part" is 1 %
    of a train split of 100,000 examples or more, else 10 %: what is reported as the
    test result must not be what the model was chosen on.

    Args:
        sizes: number of records of each TFDS split.
        test_has_labels: whether the records of "test" can be scored.

    Returns:
        The ranges of "train", "validation" and "test".

    Raises:
        ConfigurationError: there is no train split.
    """
    if not sizes.get("train"):
        raise ConfigurationError(
            f"The data set needs a split 'train', received {', '.join(sizes)}."
        )
    count = sizes["train"]
    whole = {name: RecordRange(name, 0, size) for name, size in sizes.items()}
    if "test" in sizes and test_has_labels:
        if "validation" in sizes:
            return {name: whole[name] for name in ("train", "validation", "test")}
        return {**_cut(count, count // 10), "test": whole["test"]}
    if "validation" in sizes:
        last_part = count // (100 if count >= LARGE else 10)
        return {**_cut(count, last_part), "test": whole["validation"]}
    tenth = count // 10
    return {
        **_cut(count - tenth, tenth),
        "test": RecordRange("train", count - tenth, count),
    }


def _cut(count: int, validation_count: int) -> dict[str, RecordRange]:
    train_count = count - validation_count
    return {
        "train": RecordRange("train", 0, train_count),
        "validation": RecordRange("train", train_count, count),
    }

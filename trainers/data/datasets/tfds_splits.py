"""Maps train, validation and test to the records of a TFDS data set."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainers.utils.errors import ConfigurationError

LARGE = 100_000  # from here on 1 % is enough for choosing a model


@dataclass(frozen=True)
class RecordRange:
    """Records `start` to `stop` - 1 of a TFDS split."""

    split: str
    start: int
    stop: int


def plan_splits(sizes: Mapping[str, int], test_has_labels: bool) -> dict[str, RecordRange]:
    """Maps our splits to TFDS's, given the number of records of each TFDS split.

    | TFDS has                | train       | validation  | test       |
    |-------------------------|-------------|-------------|------------|
    | train, validation, test | train       | validation  | test       |
    | train, test             | first 90 %  | last 10 %   | test       |
    | train, validation       | the rest    | last part   | validation |
    | train                   | first 80 %  | next 10 %   | last 10 %  |
    | validation or test only |             |             | that one   |

    "whole_train" is all of TFDS's train split, including what is "validation" above: for
    recipes that were published with it. A test split without labels (ImageNet's) counts as
    missing. The "last part" is 1 % of a train split of 100,000 examples or more, else
    10 %: the test result must not be reported on what the model was chosen on.

    Returns:
        The ranges of "train", "validation", "test" and "whole_train", or of "test" alone.

    Raises:
        ConfigurationError: the splits train, validation and test are all missing.
    """
    whole = {name: RecordRange(name, 0, size) for name, size in sizes.items()}
    if not sizes.get("train"):
        return _plan_without_train(whole, test_has_labels)
    return {**_plan_with_train(sizes, whole, test_has_labels), "whole_train": whole["train"]}


def _plan_without_train(
    whole: Mapping[str, RecordRange], test_has_labels: bool
) -> dict[str, RecordRange]:
    # Sets made for testing, such as ImageNet-V2.
    for name in ("test", "validation"):
        if name in whole and (name != "test" or test_has_labels):
            return {"test": whole[name]}
    raise ConfigurationError(
        "The data set needs a split 'train', 'validation' or 'test' with labels, received "
        f"{', '.join(whole)}."
    )


def _plan_with_train(
    sizes: Mapping[str, int], whole: Mapping[str, RecordRange], test_has_labels: bool
) -> dict[str, RecordRange]:
    count = sizes["train"]
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

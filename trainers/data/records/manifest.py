"""Finds and describes the files of TFRecord video sets: shards, classes, labels.

    DIR/dataset.json                          number of classes; one label or several; frames
    DIR/labels.txt                            one class per line, in the order of the numbers
    DIR/train.tfrecord-00000-of-00004 …       any number of shards per split

The first two are the same for all splits, so that a number means the same class in each.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainers.utils import files
from trainers.utils.errors import ConfigurationError

DESCRIPTION = "dataset.json"
LABELS = "labels.txt"
_LABELS_JSON = "labels.json"
_SHARD = re.compile(r"(?P<split>\w+)(\.tfrecord)?-(?P<number>\d{5,})-of-(?P<count>\d{5,})")
_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
SHARD_LAYOUT = "Expected data_dir/SPLIT.tfrecord-00000-of-00004 and so on, or SPLIT-00000-of-00004."


@dataclass(frozen=True)
class Description:
    """What holds for all splits of a data set; None is unknown."""

    num_classes: int
    multi_label: bool  # whether a video may have several labels, or none
    frames_per_second: float | None = None
    min_side: int | None = None  # pixels of the shorter side


def shard_name(split: str, number: int, count: int) -> str:
    """Returns the name of a shard's file, as DMVR and `trainers.make_video_records` write it."""
    return f"{split}.tfrecord-{number:05d}-of-{count:05d}"


def find_shards(data_dir: str, split: str) -> list[str]:
    """Returns the paths of a split's files, in the order of their numbers.

    The files of "validation" may be called "val". Raises ConfigurationError if there are none, if
    some are missing, or if there are two sets of them.
    """
    found: dict[tuple[str, int], dict[int, str]] = {}
    for name in files.list_names(data_dir):
        match = _SHARD.fullmatch(name)
        if match and match["split"] in _SPLIT_NAMES[split]:
            group = found.setdefault((name[: match.start("number")], int(match["count"])), {})
            group[int(match["number"])] = name
    if len(found) != 1:
        hint = ""
        if not found:
            other = ", or set data.final_split=None" if split == "test" else ""
            hint = f" Make it by trainers.make_video_records --split={split}{other}."
        sets = ", ".join(f"{stem}*-of-{count:05d}" for stem, count in sorted(found))
        raise ConfigurationError(
            f"{data_dir} must hold one set of TFRecord files for the split {split!r}, found "
            f"{sets or 'none'}. {SHARD_LAYOUT}{hint}"
        )
    ((_, count), shards), *_ = found.items()
    missing = sorted(set(range(count)) - set(shards))
    if missing:
        raise ConfigurationError(
            f"{data_dir} lacks {len(missing)} of {count} files of the split {split!r}, the "
            f"first is number {missing[0]:05d}. Copy the rest, or let the conversion end: "
            "the same command resumes it."
        )
    return [files.join(data_dir, shards[number]) for number in range(count)]


def has_shards(data_dir: str) -> bool:
    """Returns whether a folder holds a file of any split."""
    return any(_SHARD.fullmatch(name) for name in files.list_names(data_dir))


def read_description(data_dir: str) -> Description | None:
    """Reads `dataset.json`; None if there is none. Raises ConfigurationError if it is damaged."""
    path = files.join(data_dir, DESCRIPTION)
    content = _read_json(path)
    if content is None:
        return None
    values = content if isinstance(content, dict) else {}
    description = Description(
        values.get("num_classes", 0),
        values.get("multi_label", 0),
        values.get("frames_per_second"),
        values.get("min_side"),
    )
    if not _is_description(description):
        raise ConfigurationError(
            f'{path} must hold {{"multi_label": false, "num_classes": 400}} or the like, '
            f"received {json.dumps(content)[:200]}. Correct or remove it."
        )
    return description


def _is_description(description: Description) -> bool:
    """Returns whether all values have their types and are possible."""
    rate, side = description.frames_per_second, description.min_side
    return (
        type(description.num_classes) is int
        and description.num_classes >= 1
        and type(description.multi_label) is bool
        and (rate is None or (type(rate) in (int, float) and rate > 0))
        and (side is None or (type(side) is int and side >= 1))
    )


def write_description(data_dir: str, description: Description) -> None:
    """Writes `dataset.json`, without unknown values."""
    values = dataclasses.asdict(description)
    content = {name: value for name, value in values.items() if value is not None}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    files.write_atomically(files.join(data_dir, DESCRIPTION), text.encode())


def read_labels(data_dir: str) -> tuple[str, ...] | None:
    """Reads the label map of a data set: `labels.txt`, or `labels.json`.

    The latter is a list of names, or an object from names to numbers. Returns the names in the
    order of their numbers, or None if there is no label map. Raises ConfigurationError if it is
    damaged.
    """
    path = files.join(data_dir, LABELS)
    if files.exists(path):
        return read_label_file(path)
    path = files.join(data_dir, _LABELS_JSON)
    content = _read_json(path)
    if content is None:
        return None
    if isinstance(content, dict) and _are_all_numbers(list(content.values())):
        content = sorted(content, key=content.__getitem__)
    if not isinstance(content, list) or not all(type(name) in (str, int) for name in content):
        raise ConfigurationError(
            f"{path} must be a list of class names, or an object from names to 0, 1, …; "
            f"received {json.dumps(content)[:200]}. Correct or remove it."
        )
    return _checked([str(name) for name in content], path)


def read_label_file(path: str) -> tuple[str, ...]:
    """Reads a text file of class names, one per line; the first is class 0.

    Raises ConfigurationError if a line is empty, or two are the same.
    """
    try:
        lines = files.read(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} must be text in UTF-8: {error}.") from error
    return _checked([line.strip() for line in lines], path)


def write_labels(data_dir: str, labels: Sequence[str]) -> None:
    text = "".join(f"{label}\n" for label in labels)
    files.write_atomically(files.join(data_dir, LABELS), text.encode())


def _are_all_numbers(values: list[Any]) -> bool:
    """Returns whether the values are 0, 1, … in any order."""
    integers = all(type(value) is int for value in values)
    return integers and sorted(values) == list(range(len(values)))


def _checked(labels: list[str], path: str) -> tuple[str, ...]:
    for number, label in enumerate(labels):
        if not label or label in labels[:number]:
            problem = f"names {label!r} again" if label else "is empty"
            raise ConfigurationError(
                f"{path}: line {number + 1} {problem}; expected one name per line, each "
                "once. Correct the file."
            )
    if not labels:
        raise ConfigurationError(f"{path} is empty; expected one name per line.")
    return tuple(labels)


def _read_json(path: str) -> Any:
    if not files.exists(path):
        return None
    try:
        return json.loads(files.read(path))
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}. Correct or remove it.") from error

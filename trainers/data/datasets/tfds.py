"""Reads data sets prepared by TensorFlow Datasets, record by record.

The label is the feature `label`, one class, or for ImageNet-ReaL `real_label`, any number
of classes that are right. A video is a feature `video`, whose records hold an encoded image
per frame.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from trainers.data.records.array_record import ArrayRecordFiles
from trainers.data.records.tfrecord import RecordFiles
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

_SEVERAL_LABELS = "real_label"
_Records = RecordFiles | ArrayRecordFiles
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

    Raises:
        ConfigurationError: the splits train, validation and test are all missing.
    """
    whole = {name: RecordRange(name, 0, size) for name, size in sizes.items()}
    has_test = "test" in sizes and test_has_labels
    count = sizes.get("train", 0)
    if not count:
        # Sets made for testing, such as ImageNet-V2.
        if not has_test and "validation" not in sizes:
            raise ConfigurationError(
                "The data set needs a split 'train', 'validation' or 'test' with labels, received "
                f"{', '.join(sizes)}."
            )
        return {"test": whole["test" if has_test else "validation"]}
    if has_test and "validation" in sizes:
        plan = {name: whole[name] for name in ("train", "validation", "test")}
    elif has_test:
        plan = {**_cut(count, count // 10), "test": whole["test"]}
    elif "validation" in sizes:
        last_part = count // (100 if count >= LARGE else 10)
        plan = {**_cut(count, last_part), "test": whole["validation"]}
    else:
        tenth = count // 10
        test = RecordRange("train", count - tenth, count)
        plan = {**_cut(count - tenth, tenth), "test": test}
    return {**plan, "whole_train": whole["train"]}


def _cut(count: int, validation_count: int) -> dict[str, RecordRange]:
    train_count = count - validation_count
    return {
        "train": RecordRange("train", 0, train_count),
        "validation": RecordRange("train", train_count, count),
    }


class TfdsSource:
    """A `Source` of the images or videos of a prepared TFDS data set; nothing is downloaded.

    `dataset` is "NAME[/CONFIG][:VERSION]", `data_dir` the folder of all prepared sets.

    Raises:
        ConfigurationError: the set is not prepared there, or is not of labelled images or videos.
        DataError: its files are damaged.
    """

    def __init__(
        self, dataset: str, split: str, data_dir: str | None, recover: bool = False
    ) -> None:
        self.name = f"tfds:{dataset}"
        self.split = split
        builder = _open_builder(dataset, data_dir)
        self._features = _pixels_and_label(builder.info.features, self.name)
        self._pixels = "video" if "video" in self._features else "image"
        self._label = "label" if "label" in self._features else _SEVERAL_LABELS
        label = self._features[self._label]
        label = label.feature if self._label == _SEVERAL_LABELS else label
        self.class_names = tuple(label.names or map(str, range(label.num_classes)))
        sizes = {
            name: info.num_examples
            for name, info in builder.info.splits.items()
            if info.num_examples
        }
        plan = plan_splits(sizes, "test" in sizes and self._is_labelled(builder))
        chosen = plan.get(split, RecordRange(split, 0, 0))
        self._start = chosen.start
        self.num_examples = chosen.stop - chosen.start
        if not self.num_examples:
            raise ConfigurationError(
                f"{self.name} is too small for a {split} split: it has "
                + ", ".join(f"{size} {name}" for name, size in sizes.items())
                + " examples."
            )
        self._records = _open_records(builder, chosen.split, recover)
        self._check_kind(self._records)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def identity(self, index: int) -> str:
        return self._records.identity(self._start + index)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        serialized, identity = tf.numpy_function(
            self._read, [index], [tf.string, tf.string], stateful=False
        )
        example = self._parse(tf.ensure_shape(serialized, []))
        return {
            "encoded" if self._pixels == "image" else "frames": example[self._pixels],
            "identity": tf.ensure_shape(identity, []),
            "label": self._label_of(example),
        }

    def _label_of(self, example: dict[str, Any]) -> tf.Tensor:
        label = tf.cast(example[self._label], tf.int64)
        check = tf.debugging.assert_equal(
            tf.reduce_all((label >= 0) & (label < self.num_classes)),
            True,
            f"a label is outside of 0 to {self.num_classes - 1}, for {self.num_classes} classes",
        )
        # An assertion is an operation to wait for in a graph, and None eagerly.
        with tf.control_dependencies([] if check is None else [check]):
            label = tf.identity(label)
        if self._label == "label":
            return label
        chosen = tf.one_hot(label, self.num_classes, on_value=True, off_value=False)
        return tf.cast(tf.reduce_any(chosen, axis=0), tf.int64)

    def _read(self, index: np.int64) -> tuple[bytes, bytes]:
        if not 0 <= index < self.num_examples:
            raise IndexError(f"Example {index} of {self.num_examples} does not exist.")
        number = self._start + int(index)
        return self._records.read(number), self._records.identity(number).encode()

    def _parse(self, serialized: tf.Tensor) -> dict[str, Any]:
        import tensorflow_datasets as tfds

        decoders = {self._pixels: tfds.decode.SkipDecoding()}
        example: dict[str, Any] = self._features.deserialize_example(serialized, decoders=decoders)
        return example

    def _check_kind(self, records: _Records) -> None:
        try:
            example = tf.train.SequenceExample.FromString(records.read(0))
        except (DataError, DecodeError):
            return  # damaged, which is reported where it is read
        if example.feature_lists.feature_list:
            lists = ", ".join(sorted(example.feature_lists.feature_list))
            raise ConfigurationError(
                f"{records.identity(0)} is a tf.train.SequenceExample, with the feature lists "
                f"{lists}. Expected a tf.train.Example, with the features {self._pixels} and "
                f"{self._label}, as TFDS writes it. Prepare {self.name} again, or read the records "
                "with data.source=records."
            )

    def _is_labelled(self, builder: Any) -> bool:
        # Sets with a secret test set (ImageNet) store -1 there.
        records = _open_records(builder, "test")
        self._check_kind(records)
        return bool(tf.reduce_all(self._parse(tf.constant(records.read(0)))[self._label] >= 0))


def _open_builder(dataset: str, data_dir: str | None) -> Any:
    tfds = import_tfds()
    if not dataset:
        raise ConfigurationError(
            "data.source=tfds: lacks a name: expected tfds:NAME[/CONFIG][:VERSION], "
            "such as tfds:imagenet2012."
        )
    directory = os.path.expanduser(data_dir or str(tfds.core.constants.DATA_DIR))
    try:
        # From the files alone: neither the network nor the set's own code is needed.
        builder = tfds.core.read_only_builder.builder_from_files(dataset, data_dir=directory)
    except (tfds.core.registered.DatasetNotFoundError, ValueError, OSError) as error:
        names = [name for name in files.list_names(directory) if name[:1] != "."]
        found = [name for name in names if name != "downloads"]
        raise ConfigurationError(
            f"The TFDS data set {dataset!r} is not prepared in {directory} (found there: "
            f'{", ".join(found[:20]) or "nothing"}). Prepare it with: python -c "import '
            f"tensorflow_datasets as tfds; tfds.builder({dataset!r}, data_dir={directory!r})"
            '.download_and_prepare()"'
        ) from error
    return builder


def _pixels_and_label(features: Any, name: str) -> Any:
    """Reduces a set's features to the two that are read."""
    import tensorflow_datasets as tfds

    read: dict[str, Any] = {}
    for key, kind in (("video", tfds.features.Video), ("image", tfds.features.Image)):
        feature = features[key] if key in features else None
        if isinstance(feature, kind) and np.dtype(feature.np_dtype) == np.uint8:
            read = {key: feature}
    label = features["label"] if "label" in features else None
    several = features[_SEVERAL_LABELS] if _SEVERAL_LABELS in features else None
    if isinstance(label, tfds.features.ClassLabel):
        read["label"] = label
    elif isinstance(getattr(several, "feature", None), tfds.features.ClassLabel):
        read[_SEVERAL_LABELS] = several
    if len(read) < 2:
        found = ", ".join(f"{key}: {type(value).__name__}" for key, value in features.items())
        raise ConfigurationError(
            f"{name} must have the features 'image' (Image of uint8) or 'video' (Video of uint8), "
            f"and 'label' (ClassLabel); found {found}."
        )
    return tfds.features.FeaturesDict(read)


def _open_records(builder: Any, split: str, recover: bool = False) -> _Records:
    info = builder.info.splits[split]
    paths = [os.fspath(path) for path in info.filepaths]
    file_format = builder.info.file_format.value
    if file_format == "tfrecord":
        return RecordFiles(paths, info.shard_lengths, recover=recover)
    if file_format == "array_record":
        return ArrayRecordFiles(paths, info.shard_lengths)
    raise ConfigurationError(
        f"{builder.info.full_name} is stored as {file_format} files; expected tfrecord "
        "or array_record. Prepare it again with "
        "download_and_prepare(file_format='tfrecord')."
    )


def import_tfds() -> Any:
    """Returns the module `tensorflow_datasets`; raises ConfigurationError if it does not load."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ConfigurationError(
            "data.source=tfds:… needs the package tensorflow-datasets, which could "
            f"not be imported ({error}). Install it with: "
            "pip install tensorflow-datasets importlib_resources"
        ) from error
    if not hasattr(tfds, "core"):  # the package logs why, and is left without its contents
        raise ConfigurationError(
            f"The package tensorflow-datasets is installed, but does not load: {_reason()}. "
            "TensorFlow before 2.20 needs an older part of it: "
            "pip install tensorflow-metadata==1.17.3"
        )
    return tfds


def _reason() -> str:
    try:
        importlib.import_module("tensorflow_datasets.public_api")
    except Exception as error:  # loading a package may raise anything
        return str(error).partition(". ")[0].rstrip(".")
    return "see the log above"

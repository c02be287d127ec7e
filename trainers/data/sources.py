"""Defines the interface of a data source, and opens sources by name."""

from collections.abc import Callable
from collections.abc import Mapping
from functools import partial
from typing import Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.configuration.data_options import RecordsConfig
from trainers.data.datasets.digit_canvases import CLASS_NAMES as DIGIT_NAMES
from trainers.data.datasets.digit_canvases import STANDARD_CANVASES
from trainers.data.datasets.digit_canvases import load_canvases
from trainers.data.datasets.digits import digits_source
from trainers.data.datasets.elpv import elpv_source
from trainers.data.datasets.folders import ImageFolderSource
from trainers.data.datasets.folders import VideoFolderSource
from trainers.data.datasets.in_memory import InMemorySource
from trainers.data.datasets.tfds import TfdsSource
from trainers.data.datasets.video_records import VideoRecordsSource
from trainers.data.freedoom.dataset import STANDARD_SETS
from trainers.data.freedoom.dataset import load_rendered
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

SPLITS = ("train", "validation", "test")
# For TFDS; "whole_train" includes what `plan_splits` sets aside for validation.
TFDS_SPLITS = (*SPLITS, "whole_train")
_IN_A_FOLDER = ("folder", "video_folder", "records", *STANDARD_CANVASES)


class Source(Protocol):
    """Labelled images or videos, addressed by number.

    A source decides neither order nor shuffling: the caller gives the index. Optional methods
    are `identity(index)`, which names file and record in messages when `load` fails, and, where
    records are made of other files, `original(index)`, which names that file, or None if the
    record does not say. A source of class folders has `file_splits` and `notes`, see there.

    Attributes:
        name: as in `data.source`.
        split: "train", "validation" or "test".
        num_examples: valid indices are 0 to `num_examples - 1`.
        class_names: `class_names[label]` names a label.
    """

    name: str
    split: str
    num_examples: int
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Returns the number of classes, the same for every split."""
        ...

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads one example; usable inside `tf.data.Dataset.map`.

        Args:
            index: () int64.

        Returns:
            "label": () int64, or for several labels at once a (num_classes,) vector of zeros and
            ones; "mirrored_label", where directions are classes: the label of the mirrored video;
            and one of

            - "image": (height, width, 3) uint8
            - "encoded": () string, the bytes of a JPEG, PNG, BMP or WebP file, with "identity"
            - "video": (frames, height, width, 3) uint8
            - "frames": (frames,) string, an encoded image each, with "identity"

            "identity": () string, names the file or record in messages. The number of frames may
            differ from video to video.
        """
        ...


def make_source(
    name: str,
    split: str,
    data_dir: str | None,
    class_names: tuple[str, ...] | None = None,
    records: RecordsConfig | None = None,
    file_splits: Mapping[str, str] | None = None,
) -> Source:
    """Opens a source of images or videos.

    Args:
        name: `freedoom_objects`, `freedoom_scenes`, `freedoom_motion`, `freedoom_multilabel`,
            `freedoom_route`, `digits`, `elpv`, `cluttered_digits`, `cluttered_digits_96`,
            `digit_relation`, `folder`, `video_folder`, `records` or
            `tfds:NAME[/CONFIG][:VERSION]`.
        split: "train", "validation" or "test", for `tfds` also "whole_train".
        data_dir: where `folder`, `video_folder`, `records` and `tfds` look, and the sets made of
            MNIST.
        class_names: for folders, the classes in the order of their labels, of which a folder may
            lack some; None: those of its own train split.
        records: how to read `records`; `tfds` uses only its `recover`.
        file_splits: for folders without split folders, from "CLASS/FILE" to the split; None:
            each class is split 80/10/10.

    Raises:
        ConfigurationError: unknown name or split, missing package or data.
    """
    check_source(name, split)
    if name.startswith("tfds:"):
        dataset = name.removeprefix("tfds:")
        return TfdsSource(dataset, split, data_dir, records is not None and records.recover)
    if name == "folder":
        return ImageFolderSource(data_dir, split, class_names, file_splits)
    if name == "video_folder":
        return VideoFolderSource(data_dir, split, class_names, file_splits)
    if name == "records":
        return VideoRecordsSource(data_dir, split, records)
    if name in STANDARD_CANVASES:
        return _canvas_source(name, split, data_dir)
    return _BUILT_IN[name](split)


def _canvas_source(name: str, split: str, data_dir: str | None) -> Source:
    arrays = load_canvases(split, data_dir, STANDARD_CANVASES[name])
    return InMemorySource(name, split, arrays["images"], arrays["labels"], DIGIT_NAMES)


def _freedoom_source(name: str, split: str) -> Source:
    options = STANDARD_SETS[name]
    arrays = load_rendered(split, options)
    return InMemorySource(
        name,
        split,
        arrays[options.pixels],
        arrays["labels"],
        options.class_names,
        options.mirrored_classes,
    )


#: Opens a split of a set that needs no folder, by its name in `data.source`.
_BUILT_IN: dict[str, Callable[[str], Source]] = {
    **{name: partial(_freedoom_source, name) for name in STANDARD_SETS},
    "digits": digits_source,
    "elpv": elpv_source,
}


def class_counts(source: Source, skip_unreadable: bool = False) -> NDArray[np.int64]:
    """Returns how many examples each class of a source with one label an example has, (K,).

    All of them are read, but no pixels are decoded. An unreadable one raises an error of
    TensorFlow, unless it is to be skipped.
    """
    labels = tf.data.Dataset.range(source.num_examples).map(
        lambda index: source.load(index)["label"], num_parallel_calls=tf.data.AUTOTUNE
    )
    if skip_unreadable:
        labels = labels.ignore_errors()
    counts = np.zeros(source.num_classes, np.int64)
    for batch in labels.batch(1024).as_numpy_iterator():
        counts += np.bincount(batch, minlength=source.num_classes)
    return counts


def is_multi_label(source: Source) -> bool:
    """Returns whether an example of a source may have several labels, or none."""
    example = tf.data.Dataset.range(1).map(source.load).element_spec
    return bool(example["label"].shape.rank == 1)


def name_is_multi_label(name: str) -> bool | None:
    """Returns whether an example of a source of this name may have several labels, or none.

    None where it depends on the data, or on `data.multi_label`.
    """
    if name == "records" or name.startswith("tfds:"):
        return None
    return name == "freedoom_multilabel"


def reads_directory(name: str) -> bool:
    """Returns whether a source of this name reads files from `data_dir`."""
    return name in _IN_A_FOLDER or name.startswith("tfds:")


def check_source(name: str, split: str, key: str = "split") -> None:
    """Checks the names of a source and of a split, without opening any data.

    `key` is what the split is called in messages. Raises ConfigurationError with the nearest name.
    """
    splits = TFDS_SPLITS if name.startswith("tfds:") else SPLITS
    if split not in splits:
        raise ConfigurationError(
            f"Unknown {key} {split!r}: expected one of {', '.join(splits)}."
            + did_you_mean(split, splits)
        )
    if not reads_directory(name) and name not in _BUILT_IN:
        names = (*_BUILT_IN, *_IN_A_FOLDER, "tfds:NAME")
        raise ConfigurationError(
            f"Unknown data.source {name!r}: expected one of {', '.join(names)}."
            + did_you_mean(name, names)
        )

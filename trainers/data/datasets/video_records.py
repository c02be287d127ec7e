"""Reads videos in TFRecord files: an example is a list of encoded frames with its labels.

The records are `tf.train.SequenceExample`s as DMVR writes them: a feature list with one
encoded image per frame, and a context feature with the number of the class, or of several.
"""

import contextlib
import os

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from trainers.configuration.data_options import RecordsConfig
from trainers.data.records.manifest import SHARD_LAYOUT
from trainers.data.records.manifest import find_shards
from trainers.data.records.manifest import read_description
from trainers.data.records.manifest import read_labels
from trainers.data.records.tfrecord import RecordFiles
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

_FILENAME_KEY = "video/filename"
_HINT = (
    "Copy the file again; or remove it, and the same make_video_records command as before makes "
    "it again."
)


class VideoRecordsSource:
    """A `Source` of labelled videos in TFRecord files, local or on TensorFlow's file systems.

    The position of each record is found once, by reading the headers of all files, and
    cached. Frames stay encoded: the reader decides which of them to decode.

    Raises:
        ConfigurationError: files are missing, hold other records, or contradict `config`.
        DataError: a file is damaged.
    """

    def __init__(
        self, data_dir: str | None, split: str, config: RecordsConfig | None = None
    ) -> None:
        data_dir = os.path.expanduser(data_dir) if data_dir else data_dir
        if not data_dir or not files.is_directory(data_dir):
            raise ConfigurationError(
                "data.source=records needs data.data_dir, a folder of TFRecord files. Received "
                f"{data_dir!r}. {SHARD_LAYOUT} python -m trainers.make_video_records makes them."
            )
        self.name = "records"
        self.split = split
        self.config = config or RecordsConfig()
        shards = find_shards(data_dir, split)
        labels = read_labels(data_dir)
        num_classes = _num_classes(data_dir, self.config, labels)
        self.class_names = labels or tuple(map(str, range(num_classes)))
        self._records = RecordFiles(shards, hint=_HINT, recover=self.config.recover)
        self.num_examples = len(self._records)
        if not self.num_examples:
            raise ConfigurationError(f"The {split} split in {data_dir} has no records.")
        self._check_first_record()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def identity(self, index: int) -> str:
        return self._records.identity(index)

    def original(self, index: int) -> str | None:
        example = tf.train.SequenceExample()
        try:
            example.ParseFromString(self._records.read(index))
        except (DecodeError, DataError, OSError, tf.errors.OpError):
            return None  # called after a failure, which may be a damaged file
        context = example.context.feature
        names = context[_FILENAME_KEY].bytes_list.value if _FILENAME_KEY in context else ()
        return names[0].decode("utf-8", errors="replace") if names else None

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        serialized, identity = tf.numpy_function(
            self._read, [index], [tf.string, tf.string], stateful=False
        )
        context, lists = tf.io.parse_single_sequence_example(
            tf.ensure_shape(serialized, []),
            context_features={self.config.label_key: tf.io.VarLenFeature(tf.int64)},
            sequence_features={self.config.image_key: tf.io.FixedLenSequenceFeature([], tf.string)},
        )
        frames = lists[self.config.image_key]
        labels = context[self.config.label_key].values
        with tf.control_dependencies(self._checks(frames, labels)):
            return {
                "frames": tf.identity(frames),  # (T,)
                "identity": tf.ensure_shape(identity, []),
                "label": self._label(labels),
            }

    def _label(self, labels: tf.Tensor) -> tf.Tensor:
        if not self.config.multi_label:
            return tf.reshape(labels, [])
        chosen = tf.one_hot(labels, self.num_classes, on_value=True, off_value=False)
        # A label that is given twice counts once.
        return tf.cast(tf.reduce_any(chosen, axis=0), tf.float32)

    def _checks(self, frames: tf.Tensor, labels: tf.Tensor) -> list[tf.Operation]:
        count = self.num_classes
        checks = [
            tf.debugging.assert_greater(tf.size(frames), 0, "the record has no frames"),
            tf.debugging.assert_equal(
                tf.reduce_all((labels >= 0) & (labels < count)),
                True,
                f"a label is outside of 0 to {count - 1}, for {count} classes",
            ),
        ]
        if not self.config.multi_label:
            message = "one label was expected, for several set data.multi_label=True"
            checks.append(tf.debugging.assert_equal(tf.size(labels), 1, message))
        # An assertion is an operation to wait for in a graph, and None eagerly.
        return [check for check in checks if check is not None]

    def _read(self, index: np.int64) -> tuple[bytes, bytes]:
        number = int(index)
        return self._records.read(number), self._records.identity(number).encode()

    def _check_first_record(self) -> None:
        """Compares the keys with those of the first record; the message lists the record's keys."""
        number = self._first_readable()
        name = self.identity(number)
        example = tf.train.SequenceExample()
        try:
            example.ParseFromString(self._records.read(number))
        except DecodeError as error:
            raise DataError(
                f"{name} is not a tf.train.SequenceExample ({error}). Make the records with "
                "python -m trainers.make_video_records."
            ) from error
        if not example.feature_lists.feature_list:
            # An Example's features are stored like the context of a SequenceExample.
            features = ", ".join(sorted(example.context.feature)) or "none"
            raise ConfigurationError(
                f"{name} is a tf.train.Example, with the features {features}. Expected a "
                f"tf.train.SequenceExample, with one encoded image per frame in the feature list "
                f"{self.config.image_key!r} (records.image_key). Make such records of videos with "
                "python -m trainers.make_video_records; images are read by data.source=folder or "
                "tfds:NAME."
            )
        for key, kind, found in (
            ("image_key", "feature list", example.feature_lists.feature_list),
            ("label_key", "context feature", example.context.feature),
        ):
            wanted = getattr(self.config, key)
            if wanted not in found:
                raise ConfigurationError(
                    f"{name} has no {kind} {wanted!r} (records.{key}); it has "
                    f"{', '.join(sorted(found)) or 'none'}. Set records.{key} to one of these."
                )

    def _first_readable(self) -> int:
        """Returns the number of the first undamaged record; 0 where all must be undamaged."""
        for number in range(self.num_examples if self.config.recover else 0):
            with contextlib.suppress(DataError):
                self._records.read(number)
                return number
        return 0


def _num_classes(data_dir: str, config: RecordsConfig, labels: tuple[str, ...] | None) -> int:
    """Returns the number of classes, on which files and configuration must agree."""
    written = read_description(data_dir)
    if written and written.multi_label and not config.multi_label:
        raise ConfigurationError(
            f"{data_dir}: expected one label a video, for data.multi_label is False. Received "
            "records with any number of labels, as dataset.json says. Set "
            "--config.data.multi_label=True --config.loss=sigmoid."
        )
    counts = {
        "dataset.json": written.num_classes if written else None,
        "the label map": len(labels) if labels else None,
        "records.num_classes": config.num_classes,
    }
    known = {place: count for place, count in counts.items() if count is not None}
    if len(set(known.values())) != 1:
        received = ", ".join(f"{count} in {place}" for place, count in known.items())
        raise ConfigurationError(
            f"{data_dir}: expected one number of classes, in dataset.json, labels.txt or "
            f"records.num_classes. Received {received or 'none'}."
        )
    return next(iter(known.values()))

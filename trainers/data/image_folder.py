"""Images in folders, one folder a class; the layout is in `trainers/data/class_folders.py`."""

from collections.abc import Mapping

import tensorflow as tf

from trainers.data.class_folders import find_class_folders

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # what `decode_image` reads


class ImageFolderSource:
    """Labelled image files, local or on a file system that TensorFlow reads.

    Args:
        data_dir: the folder.
        split: "train", "validation" or "test".
        class_names: the classes in the order of their labels; None: the folders of the
            train split, or of the only one, sorted.
        file_splits: see `find_class_folders`.

    Attributes:
        file_splits: where no folders say it, the split of each file.
        notes: a line each on what was left out.

    Raises:
        ConfigurationError: a folder is missing, empty or of another layout, or holds a
            class that is not among `class_names`.
    """

    def __init__(
        self,
        data_dir: str | None,
        split: str,
        class_names: tuple[str, ...] | None = None,
        file_splits: Mapping[str, str] | None = None,
    ) -> None:
        self.name = "folder"
        self.split = split
        found = find_class_folders(
            data_dir,
            split,
            source=self.name,
            kind="image",
            extensions=EXTENSIONS,
            class_names=class_names,
            file_splits=file_splits,
        )
        self.class_names = found.class_names
        self.file_splits = found.file_splits
        self.notes = found.notes
        self.num_examples = len(found.paths)
        with tf.device("CPU"):
            self._paths = tf.constant(found.paths)
            self._labels = tf.constant(found.labels, tf.int64)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads one example; see `trainers.data.sources.Source`."""
        path = tf.gather(self._paths, index)
        return {
            "encoded": tf.io.read_file(path),
            "identity": path,
            "label": tf.gather(self._labels, index),
        }

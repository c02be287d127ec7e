"""Video files in folders, one folder a class; the layout is in `trainers/data/class_folders.py`.

A file is decoded anew whenever it is wanted, and as a whole: the time of all its frames
for a clip of some, and the memory of all its frames at `MIN_SIDE` pixels, for each file
that is decoded at the same moment. That is fine for trying things out, and for
evaluation. To train for long, convert the files once: `python -m trainers.make_video_records`
does so with the same frame rate and size, and then only wanted frames are decoded.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.data.class_folders import find_class_folders
from trainers.data.video_files import EXTENSIONS
from trainers.data.video_files import import_av
from trainers.data.video_files import read_frames
from trainers.utils import files
from trainers.utils.errors import ConfigurationError


class VideoFolderSource:
    """Labelled video files on a local file system, at 25 frames a second.

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
        ConfigurationError: a folder is missing, empty, of another layout or not on a local
            disk, or PyAV is not installed.
    """

    def __init__(
        self,
        data_dir: str | None,
        split: str,
        class_names: tuple[str, ...] | None = None,
        file_splits: Mapping[str, str] | None = None,
    ) -> None:
        import_av()
        self.name = "video_folder"
        self.split = split
        if data_dir and files.is_remote(data_dir):
            raise ConfigurationError(
                f"data.source={self.name}: expected data.data_dir on a local disk, received "
                f"{data_dir}. Copy the videos to a local disk, or convert them there by "
                "trainers.make_video_records, whose records may be remote."
            )

        found = find_class_folders(
            data_dir,
            split,
            source=self.name,
            kind="video",
            extensions=EXTENSIONS,
            class_names=class_names,
            file_splits=file_splits,
        )
        self.class_names = found.class_names
        self.file_splits = found.file_splits
        self.notes = found.notes
        self.num_examples = len(found.paths)
        self._found = found
        with tf.device("CPU"):
            self._labels = tf.constant(found.labels, tf.int64)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def identity(self, index: int) -> str:
        """Names a video for messages: its file."""
        return self._found.paths[index]

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads one example; see `trainers.data.sources.Source`."""
        video, identity = tf.numpy_function(
            self._read, [index], [tf.uint8, tf.string], stateful=False
        )
        return {
            "video": tf.ensure_shape(video, (None, None, None, 3)),
            "identity": tf.ensure_shape(identity, []),
            "label": tf.gather(self._labels, index),
        }

    def _read(self, index: np.int64) -> tuple[NDArray[np.uint8], bytes]:
        path = self.identity(int(index))
        return np.stack(list(read_frames(path))), path.encode()

"""Reads image or video files in folders, one folder per class.

    data_dir/train/CLASS/FILE
    data_dir/validation/CLASS/FILE
    data_dir/test/CLASS/FILE

FILE may lie in subfolders of its class. "val" and "valid" are read as "validation". Upper and
lower case do not matter in these names.

Without split folders, data_dir/CLASS/FILE, each class is split 80/10/10 when a training
starts, in the order of a hash of "CLASS/FILE". The work directory keeps that list, so a
file keeps its split when others are added or removed, or the folder moves. The split of a file
that is not on the list depends on its hash alone.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.data.video_files import VIDEO_EXTENSIONS
from trainers.data.video_files import import_av
from trainers.data.video_files import read_frames
from trainers.utils import files
from trainers.utils.errors import ConfigurationError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # what `decode_image` reads
SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
_SPLIT_NAMES = tuple(name for names in SPLIT_FOLDERS.values() for name in names)
TRAIN_PERCENT = 80
VALIDATION_PERCENT = 10


def split_exactly(class_files: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Splits the files of each class 80/10/10, up to rounding; returns "CLASS/FILE" -> split.

    A class of three files or more has one in each split; all files of a smaller class are for
    training. The names in `class_files` lack the class folder.
    """
    splits = {}
    for class_name, names in class_files.items():
        ordered = sorted(names, key=lambda name: _percent_and_hash(class_name, name))
        count, least = len(names), int(len(names) >= 3)
        num_validation = max((count + 5) // 10, least)
        num_test = max((count + 4) // 10, least)
        num_train = count - num_validation - num_test
        order = ["train"] * num_train + ["validation"] * num_validation + ["test"] * num_test
        for name, split in zip(ordered, order, strict=True):
            splits[f"{class_name}/{name}"] = split
    return splits


def split_of_file(class_name: str, file_name: str) -> str:
    """Returns the split of a file by its name alone, in a folder without split folders."""
    percent, _ = _percent_and_hash(class_name, file_name)
    if percent < TRAIN_PERCENT:
        return "train"
    if percent < TRAIN_PERCENT + VALIDATION_PERCENT:
        return "validation"
    return "test"


def count_by_suffix(paths: Iterable[str]) -> str:
    """Returns the number of files of each suffix, such as "3 .gif, 12 .tif"."""
    counts = Counter(os.path.splitext(path)[1].lower() for path in paths)
    return ", ".join(f"{counts[each]} {each or 'without a suffix'}" for each in sorted(counts))


def _percent_and_hash(class_name: str, file_name: str) -> tuple[int, bytes]:
    digest = hashlib.sha256(f"{class_name}/{file_name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100, digest


def _check_known(folder: str, own_names: Iterable[str], known: tuple[str, ...]) -> None:
    unknown = sorted(set(own_names) - set(known))
    if unknown:
        raise ConfigurationError(
            f"{folder} has classes that the training's data lack: {', '.join(unknown)}. "
            "Labels are numbered by the classes of the train split: add the folders there, "
            "or remove them here."
        )


class _FolderSource:
    """What the sources of image files and of video files share.

    Args:
        data_dir: the folder of the layout above, local or on a file system that TensorFlow reads.
        class_names: the classes in the order of their labels; None: the folders of the
            train split, or of the only one, sorted, without those that hold no such file.
        file_splits: from "CLASS/FILE" to the split, where folders do not say it;
            `split_of_file` decides for a file that it lacks. None: `split_exactly` decides.

    Attributes:
        file_splits: the same, as given or decided; empty where folders say it.
        notes: one line for each kind of thing left out.

    Raises:
        ConfigurationError: a folder is missing, empty or of another layout, or holds a
            class that is not among `class_names`.
    """

    name: str
    kind: str  # what the files hold, for messages
    extensions: tuple[str, ...]  # the endings of the files' names, in lower case

    def __init__(
        self,
        data_dir: str | None,
        split: str,
        class_names: tuple[str, ...] | None = None,
        file_splits: Mapping[str, str] | None = None,
    ) -> None:
        if not data_dir:
            raise ConfigurationError(
                f"data.source={self.name} needs data.data_dir, received {data_dir!r}. "
                + self._layout
            )
        self._check_place(data_dir)
        data_dir = os.path.expanduser(data_dir)
        if not files.is_directory(data_dir):
            raise ConfigurationError(f"data.data_dir={data_dir!r} is not a folder. {self._layout}")
        self.split = split
        self.notes: list[str] = []
        self.file_splits: Mapping[str, str] = {}
        folders = self._folders(data_dir)
        if self._has_split_folders(data_dir, folders):
            others = [name for name in folders if name.lower() not in _SPLIT_NAMES]
            if others:
                self.notes.append(f"left out of {data_dir}: beside the splits {', '.join(others)}")
            folder = self._split_folder(data_dir, split, folders)
            found = self._class_files(folder, self.notes)
            if class_names is None:
                train = self._split_folder(data_dir, "train", folders)
                class_names = tuple(found if train == folder else self._class_files(train, []))
            _check_known(folder, found, class_names)
        else:
            folder = data_dir
            found = self._class_files(folder, self.notes)
            class_names = class_names or tuple(found)
            _check_known(folder, found, class_names)
            self.file_splits = split_exactly(found) if file_splits is None else file_splits
            found = self._of_split(folder, found)
        self.class_names = class_names
        numbers = {name: number for number, name in enumerate(class_names)}
        chosen = [(name, file) for name, names in found.items() for file in names]
        self._files = [files.join(folder, name, file) for name, file in chosen]
        self.num_examples = len(chosen)
        with tf.device("CPU"):
            self._paths = tf.constant(self._files)
            self._labels = tf.constant([numbers[name] for name, _ in chosen], tf.int64)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def _layout(self) -> str:
        pattern = "*.{" + ",".join(extension[1:] for extension in self.extensions) + "}"
        return (
            f"Expected data_dir/{{train,validation,test}}/CLASS/{pattern}, or "
            f"data_dir/CLASS/{pattern}, which is split 80/10/10."
        )

    def _check_place(self, data_dir: str) -> None:
        """Checks that such files can be read from there."""

    def _folders(self, folder: str) -> list[str]:
        entries = files.list_entries(folder, self.extensions)
        return [name for name, is_folder in entries if is_folder]

    def _has_split_folders(self, data_dir: str, folders: list[str]) -> bool:
        """Returns whether there is a split folder, not just a class of that name with its files."""
        return any(
            self._folders(files.join(data_dir, name))
            for name in folders
            if name.lower() in _SPLIT_NAMES
        )

    def _split_folder(self, data_dir: str, split: str, folders: list[str]) -> str:
        present = [name for name in folders if name.lower() in SPLIT_FOLDERS[split]]
        if len(present) != 1:
            missing = split == "test" and not present
            hint = " Add the folder, or set data.final_split=None." if missing else ""
            raise ConfigurationError(
                f"{data_dir} must have one folder {' or '.join(SPLIT_FOLDERS[split])} for "
                f"the split {split!r}, received {', '.join(folders)}. {self._layout}{hint}"
            )
        return files.join(data_dir, present[0])

    def _class_files(self, folder: str, notes: list[str]) -> dict[str, list[str]]:
        """Returns the files of each class that has any; notes what is left out."""
        found: dict[str, list[str]] = {}
        others: list[str] = []
        loose: list[str] = []
        for name, is_folder in files.list_entries(folder, self.extensions):
            if not is_folder:
                loose.append(name)
                continue
            found[name] = []
            inside = files.join(folder, name)
            for path in files.files_below(inside, self.extensions):
                if not files.is_utf8(path):
                    raise ConfigurationError(
                        f"The name of a file is not UTF-8: {path!r}. Rename it."
                    )
                is_read = path.lower().endswith(self.extensions)
                (found[name] if is_read else others).append(path[len(inside) + 1 :])
        if not found:
            raise ConfigurationError(f"{folder} has no class folders. {self._layout}")
        empty = [name for name, names in found.items() if not names]
        if len(empty) == len(found):
            counted = f" ({count_by_suffix(others)})" if others else ""
            raise ConfigurationError(
                f"{folder} has no {self.kind} files in its class folders {', '.join(empty)}"
                f"{counted}: expected names that end in {', '.join(self.extensions)}. "
                + self._layout
            )
        if others:
            notes.append(
                f"left out of {folder}: {count_by_suffix(others)}; {self.kind} files end in "
                f"{', '.join(self.extensions[:-1])} or {self.extensions[-1]}"
            )
        loose = [name for name in loose if name.lower().endswith(self.extensions)]
        if loose:
            notes.append(f"left out of {folder}: in no class folder {count_by_suffix(loose)}")
        if empty:
            notes.append(
                f"left out of {folder}: class folders without {self.kind} files: {', '.join(empty)}"
            )
        return {name: names for name, names in found.items() if names}

    def _of_split(self, folder: str, found: dict[str, list[str]]) -> dict[str, list[str]]:
        """Returns the files of the split, by the list or else by their names."""

        def is_chosen(name: str, file: str) -> bool:
            split = self.file_splits.get(f"{name}/{file}") or split_of_file(name, file)
            return split == self.split

        chosen = {
            name: [file for file in names if is_chosen(name, file)] for name, names in found.items()
        }
        if not any(chosen.values()):
            raise ConfigurationError(
                f"Of the few files in {folder} none falls into the split {self.split!r} when split "
                "80/10/10: expected a class of three files or more. Make split folders instead. "
                + self._layout
            )
        return chosen


class ImageFolderSource(_FolderSource):
    """A `Source` of labelled image files, local or on a file system that TensorFlow reads."""

    name = "folder"
    kind = "image"
    extensions = IMAGE_EXTENSIONS

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        path = tf.gather(self._paths, index)
        return {
            "encoded": tf.io.read_file(path),
            "identity": path,
            "label": tf.gather(self._labels, index),
        }


class VideoFolderSource(_FolderSource):
    """A `Source` of labelled video files on a local file system, at 25 frames per second.

    A file is decoded whole for every example; `VideoRecordsSource` decodes only the wanted frames.
    Raises ConfigurationError also for a folder that is not on a local disk, and without PyAV.
    """

    name = "video_folder"
    kind = "video"
    extensions = VIDEO_EXTENSIONS

    def _check_place(self, data_dir: str) -> None:
        import_av()
        if files.is_remote(data_dir):
            raise ConfigurationError(
                f"data.source={self.name}: expected data.data_dir on a local disk, received "
                f"{data_dir}. Copy the videos to a local disk, or convert them there by "
                "trainers.make_video_records, whose records may be remote."
            )

    def identity(self, index: int) -> str:
        return self._files[index]

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
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

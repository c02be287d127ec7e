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

A video file is decoded whole for every example, which suits experiments and evaluation. For
long trainings, convert the files once with `python -m trainers.make_video_records`;
then only the wanted frames are decoded.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

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
TRAIN_PERCENT = 80
VALIDATION_PERCENT = 10


@dataclass(frozen=True)
class ClassFolders:
    """The files of a split.

    Attributes:
        class_names: the folders of the train split, sorted.
        paths: the files, sorted by class, then by name.
        labels: the position of each file's class in `class_names`.
        file_splits: from "CLASS/FILE" to the split, as given or decided; empty where
            folders say it.
        notes: one line for each kind of thing left out.
    """

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    file_splits: Mapping[str, str]
    notes: tuple[str, ...]


def find_class_folders(
    data_dir: str | None,
    split: str,
    *,
    source: str,
    kind: str,
    extensions: tuple[str, ...],
    class_names: tuple[str, ...] | None = None,
    file_splits: Mapping[str, str] | None = None,
) -> ClassFolders:
    """Lists the classes and the files of a split.

    Args:
        data_dir: the folder of the layout above, local or on a file system that
            TensorFlow reads.
        split: "train", "validation" or "test".
        source: as in `data.source`, for messages.
        kind: what the files hold, such as "image", for messages.
        extensions: the endings of the files' names, in lower case.
        class_names: the classes in the order of their labels; None: the folders of the
            train split, or of the only one, sorted, without those that hold no such file.
        file_splits: from "CLASS/FILE" to the split, where folders do not say it;
            `split_of_file` decides for a file that it lacks. None: `split_exactly` decides.

    Raises:
        ConfigurationError: a folder is missing, empty or of another layout, or holds a
            class that is not among `class_names`.
    """
    return _Search(source, kind, extensions, class_names, file_splits).find(data_dir, split)


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


@dataclass(frozen=True)
class _Search:
    source: str
    kind: str
    extensions: tuple[str, ...]
    known: tuple[str, ...] | None
    file_splits: Mapping[str, str] | None

    @property
    def endings(self) -> str:
        return f"{', '.join(self.extensions[:-1])} or {self.extensions[-1]}"

    @property
    def layout(self) -> str:
        pattern = "*.{" + ",".join(extension[1:] for extension in self.extensions) + "}"
        return (
            f"Expected data_dir/{{train,validation,test}}/CLASS/{pattern}, or "
            f"data_dir/CLASS/{pattern}, which is split 80/10/10."
        )

    def find(self, data_dir: str | None, split: str) -> ClassFolders:
        if not data_dir:
            raise ConfigurationError(
                f"data.source={self.source} needs data.data_dir, received {data_dir!r}. "
                + self.layout
            )
        data_dir = os.path.expanduser(data_dir)
        if not files.is_directory(data_dir):
            raise ConfigurationError(f"data.data_dir={data_dir!r} is not a folder. {self.layout}")
        folders = self._folders(data_dir)
        splits: Mapping[str, str] = {}
        notes: list[str] = []
        has_splits = self._has_split_folders(data_dir, folders)
        if has_splits:
            notes += self._beside_splits(data_dir, folders)
            folder = self._split_folder(data_dir, split, folders)
            found = self._class_files(folder, notes)
            known = self.known
            if known is None:
                train = self._split_folder(data_dir, "train", folders)
                known = tuple(found if train == folder else self._class_files(train, []))
        else:
            folder = data_dir
            found = self._class_files(folder, notes)
            known = self.known or tuple(found)
            splits = split_exactly(found) if self.file_splits is None else self.file_splits
        _check_known(folder, tuple(found), known)
        if not has_splits:
            found = self._of_split(folder, split, found, splits)
        numbers = {name: number for number, name in enumerate(known)}
        chosen = [(name, file) for name, names in found.items() for file in names]
        return ClassFolders(
            class_names=known,
            paths=tuple(files.join(folder, name, file) for name, file in chosen),
            labels=tuple(numbers[name] for name, _ in chosen),
            file_splits=splits,
            notes=tuple(notes),
        )

    def _folders(self, folder: str) -> list[str]:
        entries = files.list_entries(folder, self.extensions)
        return [name for name, is_folder in entries if is_folder]

    def _has_split_folders(self, data_dir: str, folders: list[str]) -> bool:
        """Returns whether there is a split folder, rather than a class ("train") with its files."""
        return any(
            bool(self._folders(files.join(data_dir, name)))
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
                f"the split {split!r}, received {', '.join(folders)}. {self.layout}{hint}"
            )
        return files.join(data_dir, present[0])

    def _beside_splits(self, data_dir: str, folders: list[str]) -> list[str]:
        others = [name for name in folders if name.lower() not in _SPLIT_NAMES]
        return [f"left out of {data_dir}: beside the splits {', '.join(others)}"] if others else []

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
                _check_name(path)
                is_read = path.lower().endswith(self.extensions)
                (found[name] if is_read else others).append(path[len(inside) + 1 :])
        if not found:
            raise ConfigurationError(f"{folder} has no class folders. {self.layout}")
        empty = [name for name, names in found.items() if not names]
        if len(empty) == len(found):
            counted = f" ({count_by_suffix(others)})" if others else ""
            raise ConfigurationError(
                f"{folder} has no {self.kind} files in its class folders {', '.join(empty)}"
                f"{counted}: expected names that end in {', '.join(self.extensions)}. {self.layout}"
            )
        if others:
            notes.append(
                f"left out of {folder}: {count_by_suffix(others)}; {self.kind} files end in "
                f"{self.endings}"
            )
        loose = [name for name in loose if name.lower().endswith(self.extensions)]
        if loose:
            notes.append(f"left out of {folder}: in no class folder {count_by_suffix(loose)}")
        if empty:
            notes.append(
                f"left out of {folder}: class folders without {self.kind} files: {', '.join(empty)}"
            )
        return {name: names for name, names in found.items() if names}

    def _of_split(
        self, folder: str, split: str, found: dict[str, list[str]], splits: Mapping[str, str]
    ) -> dict[str, list[str]]:
        """Returns the files of a split, by the list or else by their names."""
        chosen = {
            name: [
                file
                for file in names
                if (splits.get(f"{name}/{file}") or split_of_file(name, file)) == split
            ]
            for name, names in found.items()
        }
        if not any(chosen.values()):
            raise ConfigurationError(
                f"Of the few files in {folder} none falls into the split {split!r} when split "
                "80/10/10: expected a class of three files or more. Make split folders instead. "
                + self.layout
            )
        return chosen


_SPLIT_NAMES = tuple(name for names in SPLIT_FOLDERS.values() for name in names)


def _check_name(path: str) -> None:
    if not files.is_utf8(path):
        raise ConfigurationError(f"The name of a file is not UTF-8: {path!r}. Rename it.")


def _check_known(folder: str, own_names: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = sorted(set(own_names) - set(known))
    if unknown:
        raise ConfigurationError(
            f"{folder} has classes that the training's data lack: {', '.join(unknown)}. "
            "Labels are numbered by the classes of the train split: add the folders there, "
            "or remove them here."
        )


class _FolderSource:
    """What the sources of image files and of video files share.

    For arguments, `file_splits`, `notes` and errors see `find_class_folders` and `ClassFolders`.
    """

    name: str
    kind: str
    extensions: tuple[str, ...]

    def __init__(
        self,
        data_dir: str | None,
        split: str,
        class_names: tuple[str, ...] | None = None,
        file_splits: Mapping[str, str] | None = None,
    ) -> None:
        self.split = split
        found = find_class_folders(
            data_dir,
            split,
            source=self.name,
            kind=self.kind,
            extensions=self.extensions,
            class_names=class_names,
            file_splits=file_splits,
        )
        self.class_names = found.class_names
        self.file_splits = found.file_splits
        self.notes = found.notes
        self.num_examples = len(found.paths)
        self._files = found.paths
        with tf.device("CPU"):
            self._paths = tf.constant(found.paths)
            self._labels = tf.constant(found.labels, tf.int64)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


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

    Raises ConfigurationError also for a folder that is not on a local disk, and without PyAV.
    """

    name = "video_folder"
    kind = "video"
    extensions = VIDEO_EXTENSIONS

    def __init__(
        self,
        data_dir: str | None,
        split: str,
        class_names: tuple[str, ...] | None = None,
        file_splits: Mapping[str, str] | None = None,
    ) -> None:
        import_av()
        if data_dir and files.is_remote(data_dir):
            raise ConfigurationError(
                f"data.source={self.name}: expected data.data_dir on a local disk, received "
                f"{data_dir}. Copy the videos to a local disk, or convert them there by "
                "trainers.make_video_records, whose records may be remote."
            )
        super().__init__(data_dir, split, class_names, file_splits)

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

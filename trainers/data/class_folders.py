"""Labelled files in folders, one folder a class, whatever is in the files.

    data_dir/train/CLASS/FILE
    data_dir/validation/CLASS/FILE
    data_dir/test/CLASS/FILE

"val" is read as "validation". Without split folders, data_dir/CLASS/FILE, a hash of
"CLASS/FILE" decides the split of each file: about 80 % train, 10 % validation, 10 %
test. So a file keeps its split when others come or go, or the folder moves.
"""

import hashlib
import os
from dataclasses import dataclass

import tensorflow as tf

from trainers.errors import ConfigurationError

SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val"),
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
    """

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]


def find_class_folders(
    data_dir: str | None,
    split: str,
    *,
    source: str,
    kind: str,
    extensions: tuple[str, ...],
    class_names: tuple[str, ...] | None = None,
) -> ClassFolders:
    """Lists the classes and the files of a split.

    Args:
        data_dir: the folder of the layout above, local or on a file system that
            TensorFlow reads.
        split: "train", "validation" or "test".
        source: as in `data.source`, for messages.
        kind: what the files hold, such as "image", for messages.
        extensions: how the names of the files end, in lower case.
        class_names: the classes in the order of their labels; None: the folders of the
            train split, or of the only one, sorted.

    Raises:
        ConfigurationError: a folder is missing, empty or of another layout, or holds a
            class that is not among `class_names`.
    """
    return _Search(source, kind, extensions, class_names).find(data_dir, split)


def split_of_file(class_name: str, file_name: str) -> str:
    """Decides the split of a file in a folder without split folders.

    Args:
        class_name: the folder.
        file_name: without the folder.

    Returns:
        "train", "validation" or "test".
    """
    digest = hashlib.sha256(f"{class_name}/{file_name}".encode()).digest()
    percent = int.from_bytes(digest[:8], "big") % 100
    if percent < TRAIN_PERCENT:
        return "train"
    if percent < TRAIN_PERCENT + VALIDATION_PERCENT:
        return "validation"
    return "test"


@dataclass(frozen=True)
class _Search:
    source: str
    kind: str
    extensions: tuple[str, ...]
    known: tuple[str, ...] | None

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
        if not tf.io.gfile.isdir(data_dir):
            raise ConfigurationError(f"data.data_dir={data_dir!r} is not a folder. {self.layout}")
        class_names, files = self._find_files(data_dir, split)
        numbers = {name: number for number, name in enumerate(class_names)}
        paths = tuple(path for path, _ in files)
        return ClassFolders(class_names, paths, tuple(numbers[name] for _, name in files))

    def _find_files(
        self, data_dir: str, split: str
    ) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
        """Lists the classes, and the files of a split as (path, class name)."""
        folders = _folders(data_dir)
        if any(name in folders for names in SPLIT_FOLDERS.values() for name in names):
            folder = self._split_folder(data_dir, split, folders)
            own_names = self._class_names(folder)
            known = self.known or self._class_names(self._split_folder(data_dir, "train", folders))
            _check_known(folder, own_names, known)
            return known, self._list_classes(folder, own_names)
        own_names = self._class_names(data_dir)
        known = self.known or own_names
        _check_known(data_dir, own_names, known)
        files = [
            (path, name)
            for path, name in self._list_classes(data_dir, own_names)
            if split_of_file(name, path.rpartition("/")[2]) == split
        ]
        if not files:
            raise ConfigurationError(
                f"Of the few files in {data_dir} none falls into the split {split!r} "
                f"when split 80/10/10. Make split folders instead. {self.layout}"
            )
        return known, files

    def _split_folder(self, data_dir: str, split: str, folders: list[str]) -> str:
        present = [name for name in SPLIT_FOLDERS[split] if name in folders]
        if len(present) != 1:
            missing = split == "test" and not present
            cure = " Add the folder, or set data.final_split=None." if missing else ""
            raise ConfigurationError(
                f"{data_dir} must have one folder {' or '.join(SPLIT_FOLDERS[split])} for "
                f"the split {split!r}, received {', '.join(folders)}. {self.layout}{cure}"
            )
        return str(tf.io.gfile.join(data_dir, present[0]))

    def _class_names(self, folder: str) -> tuple[str, ...]:
        names = tuple(_folders(folder))
        if not names:
            raise ConfigurationError(f"{folder} has no class folders. {self.layout}")
        return names

    def _list_classes(self, folder: str, class_names: tuple[str, ...]) -> list[tuple[str, str]]:
        return [
            (path, name)
            for name in class_names
            for path in self._list_files(tf.io.gfile.join(folder, name))
        ]

    def _list_files(self, folder: str) -> list[str]:
        names = _visible(folder)
        chosen = [name for name in names if name.lower().endswith(self.extensions)]
        if not chosen:
            raise ConfigurationError(
                f"{folder} has no {self.kind} files ({len(names)} other entries): expected "
                f"names that end in {', '.join(self.extensions)}. {self.layout}"
            )
        return [tf.io.gfile.join(folder, name) for name in chosen]


def _check_known(folder: str, own_names: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = sorted(set(own_names) - set(known))
    if unknown:
        raise ConfigurationError(
            f"{folder} has classes that the training's data lack: {', '.join(unknown)}. "
            "Labels are numbered by the classes of the train split: add the folders there, "
            "or remove them here."
        )


def _folders(folder: str) -> list[str]:
    return [name for name in _visible(folder) if tf.io.gfile.isdir(tf.io.gfile.join(folder, name))]


def _visible(folder: str) -> list[str]:
    # Object stores list folders with a slash behind the name.
    names = {name.rstrip("/") for name in tf.io.gfile.listdir(folder)}
    return sorted(name for name in names if name and not name.startswith("."))

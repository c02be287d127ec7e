"""Images in folders, one folder a class.

    data_dir/train/CLASS/*.jpg
    data_dir/validation/CLASS/*.jpg
    data_dir/test/CLASS/*.jpg

"val" is read as "validation". Without split folders, data_dir/CLASS/*.jpg, a hash of
"CLASS/FILE" decides the split of each file: about 80 % train, 10 % validation, 10 %
test. So a file keeps its split when others come or go, or the folder moves.
"""

import hashlib
import os

import tensorflow as tf

from trainers.errors import ConfigurationError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")  # what tf.io.decode_image reads
SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val"),
    "test": ("test",),
}
TRAIN_PERCENT = 80
VALIDATION_PERCENT = 10
LAYOUT = (
    "Expected data_dir/{train,validation,test}/CLASS/*.{jpg,jpeg,png,bmp}, or "
    "data_dir/CLASS/*.{jpg,jpeg,png,bmp}, which is split 80/10/10."
)


class ImageFolderSource:
    """Labelled image files, local or on a file system that TensorFlow reads.

    Args:
        data_dir: the folder of the layout above.
        split: "train", "validation" or "test".
        class_names: the classes in the order of their labels; None: the folders of the
            train split, or of the only one, sorted.

    Raises:
        ConfigurationError: a folder is missing, empty or of another layout, or holds a
            class that is not among `class_names`.
    """

    def __init__(
        self, data_dir: str | None, split: str, class_names: tuple[str, ...] | None = None
    ) -> None:
        if not data_dir:
            raise ConfigurationError(
                f"data.source=folder needs data.data_dir, received {data_dir!r}. " + LAYOUT
            )
        data_dir = os.path.expanduser(data_dir)
        if not tf.io.gfile.isdir(data_dir):
            raise ConfigurationError(f"data.data_dir={data_dir!r} is not a folder. {LAYOUT}")
        self.name = "folder"
        self.split = split
        self.class_names, files = _find_files(data_dir, split, class_names)
        self.num_examples = len(files)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        with tf.device("CPU"):
            self._paths = tf.constant([path for path, _ in files])
            self._labels = tf.constant([numbers[name] for _, name in files], tf.int64)

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


def _find_files(
    data_dir: str, split: str, class_names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Lists the classes, and the files of a split as (path, class name)."""
    folders = _folders(data_dir)
    if any(name in folders for names in SPLIT_FOLDERS.values() for name in names):
        folder = _split_folder(data_dir, split, folders)
        own_names = _class_names(folder)
        known = class_names or _class_names(_split_folder(data_dir, "train", folders))
        _check_known(folder, own_names, known)
        return known, _list_classes(folder, own_names)
    own_names = _class_names(data_dir)
    known = class_names or own_names
    _check_known(data_dir, own_names, known)
    files = [
        (path, name)
        for path, name in _list_classes(data_dir, own_names)
        if split_of_file(name, path.rpartition("/")[2]) == split
    ]
    if not files:
        raise ConfigurationError(
            f"Of the few files in {data_dir} none falls into the split {split!r} "
            f"when split 80/10/10. Make split folders instead. {LAYOUT}"
        )
    return known, files


def _check_known(folder: str, own_names: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = sorted(set(own_names) - set(known))
    if unknown:
        raise ConfigurationError(
            f"{folder} has classes that the training's data lack: {', '.join(unknown)}. "
            "Labels are numbered by the classes of the train split: add the folders there, "
            "or remove them here."
        )


def _split_folder(data_dir: str, split: str, folders: list[str]) -> str:
    present = [name for name in SPLIT_FOLDERS[split] if name in folders]
    if len(present) != 1:
        raise ConfigurationError(
            f"{data_dir} must have one folder {' or '.join(SPLIT_FOLDERS[split])} for "
            f"the split {split!r}, received {', '.join(folders)}. {LAYOUT}"
        )
    return str(tf.io.gfile.join(data_dir, present[0]))


def _class_names(folder: str) -> tuple[str, ...]:
    names = tuple(_folders(folder))
    if not names:
        raise ConfigurationError(f"{folder} has no class folders. {LAYOUT}")
    return names


def _list_classes(folder: str, class_names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [
        (path, name) for name in class_names for path in _images(tf.io.gfile.join(folder, name))
    ]


def _images(folder: str) -> list[str]:
    names = _visible(folder)
    images = [name for name in names if name.lower().endswith(EXTENSIONS)]
    if not images:
        raise ConfigurationError(
            f"{folder} has no image files ({len(names)} other entries): expected "
            f"names that end in {', '.join(EXTENSIONS)}. {LAYOUT}"
        )
    return [tf.io.gfile.join(folder, name) for name in images]


def _folders(folder: str) -> list[str]:
    return [name for name in _visible(folder) if tf.io.gfile.isdir(tf.io.gfile.join(folder, name))]


def _visible(folder: str) -> list[str]:
    # Object stores list folders with a slash behind the name.
    names = {name.rstrip("/") for name in tf.io.gfile.listdir(folder)}
    return sorted(name for name in names if name and not name.startswith("."))

"""Reads MNIST: handwritten digits, 60,000 for training and 10,000 for tests, 28x28 pixels each.

Nothing is downloaded. The data are licensed CC BY-SA 3.0, and so is what is made of them: nothing
of either may be redistributed with this program under its own licence.

Reference: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
"""

import functools
import gzip
import io
import math
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.errors import one_line

SIDE = 28
NUM_CLASSES = 10
KERAS_FILE = "mnist.npz"
#: Images and labels of each part, as MNIST's authors name them; also with ".gz" behind.
IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# The last byte of a magic number is the number of axes, the one before it says: bytes.
_IMAGES_MAGIC, _LABELS_MAGIC = 0x803, 0x801
# Of the training file, in its order, five sixths are trained on: 50,000 digits.
_TRAIN_SHARE = (5, 6)


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, white ink on black.

    Attributes:
        images: (count, 28, 28) uint8.
        labels: (count,) int64, 0 to 9.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @functools.cached_property
    def of_class(self) -> tuple[NDArray[np.int64], ...]:
        """The positions of each class, 0 to 9."""
        return tuple(np.flatnonzero(self.labels == label) for label in range(NUM_CLASSES))


def load_mnist(split: str, data_dir: str | None) -> Digits:
    """Reads the digits of one split, which have no digit in common.

    Args:
        split: "train", the first five sixths of MNIST's training file; "validation", the rest of
            it; or "test", MNIST's test file.
        data_dir: Holds the four IDX files, plain or as `.gz`, or Keras' `mnist.npz`. Without them
            the `mnist.npz` in Keras' cache is read.

    Raises:
        ConfigurationError: There is neither.
        DataError: A file is damaged, or lacks one of the ten digits.
    """
    part = "test" if split == "test" else "train"
    images, labels, place = _read(part, files.path_text(data_dir))
    _check(images, labels, place)
    if part == "train":
        border = len(labels) * _TRAIN_SHARE[0] // _TRAIN_SHARE[1]
        chosen = slice(border) if split == "train" else slice(border, None)
        images, labels = images[chosen], labels[chosen]
    digits = Digits(images, labels.astype(np.int64))
    absent = [label for label, places in enumerate(digits.of_class) if not len(places)]
    if absent:
        raise DataError(
            f"{place}: expected each of the digits 0 to 9 in the split {split!r}. Of {len(labels)} "
            f"none is {absent[0]}. Put the files of MNIST there."
        )
    return digits


def _read(part: str, folder: str) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Returns images and labels as they are stored, and where they come from."""
    if folder and (paths := _idx_paths(folder)):
        image_file, label_file = (paths[name] for name in IDX_FILES[part])
        images = _read_idx(image_file, _IMAGES_MAGIC)
        return images, _read_idx(label_file, _LABELS_MAGIC), image_file
    keras_home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    for each in (folder, os.path.join(keras_home, "datasets")):
        if each and files.exists(path := files.join(each, KERAS_FILE)):
            return *_read_npz(path, part), path
    raise ConfigurationError(
        f"data.data_dir: expected a folder with MNIST's four IDX files or Keras' {KERAS_FILE}. "
        f"Received {folder or None!r}, and there is none in Keras' cache. To get it: python -c "
        '"import keras; keras.datasets.mnist.load_data()", or by TensorFlow Datasets, see '
        "docs/data.md."
    )


def _idx_paths(folder: str) -> dict[str, str]:
    """Returns the path of each IDX file by its name; none if none is there."""
    names = [name for pair in IDX_FILES.values() for name in pair]
    paths = {}
    for name in names:
        for path in (files.join(folder, name), files.join(folder, f"{name}.gz")):
            if name not in paths and files.exists(path):
                paths[name] = path
    missing = [name for name in names if name not in paths]
    if paths and missing:
        raise ConfigurationError(
            f"data.data_dir: expected MNIST's four IDX files, plain or as .gz, in {folder}. "
            f"Missing: {', '.join(missing)}. Put them there."
        )
    return paths


def _read_idx(path: str, magic: int) -> NDArray[np.uint8]:
    """Reads a file of bytes with a header: the magic number and the length of each axis."""
    content = files.read(path)
    if path.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be unpacked: {one_line(error)}. Get it again."
            ) from error
    axes = magic % 256
    header = struct.Struct(f">{1 + axes}I")
    found, *shape = header.unpack_from(content) if len(content) >= header.size else (None,)
    if found != magic:
        raise DataError(
            f"{path}: expected an IDX file with the magic number {magic}. Received {found}. Get it "
            "again."
        )
    length = len(content) - header.size
    if length != math.prod(shape):
        raise DataError(
            f"{path}: expected {math.prod(shape)} bytes after the header, for its shape "
            f"{tuple(shape)}. Received {length}. Get it again."
        )
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(shape)


def _read_npz(path: str, part: str) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        with np.load(io.BytesIO(files.read(path)), allow_pickle=False) as arrays:
            return arrays[f"x_{part}"], arrays[f"y_{part}"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is not a whole {KERAS_FILE} of Keras: {one_line(error)}. Remove it, and get "
            "it again."
        ) from error


def _check(images: NDArray[Any], labels: NDArray[Any], place: str) -> None:
    fits = images.dtype == np.uint8 and images.ndim == 3 and images.shape[1:] == (SIDE, SIDE)
    if not fits:
        raise DataError(
            f"{place}: expected images of {SIDE}x{SIDE} bytes. Received {images.dtype} of shape "
            f"{images.shape}. Put the files of MNIST there."
        )
    fits = np.issubdtype(labels.dtype, np.integer) and labels.shape == (len(images),)
    if not fits:
        raise DataError(
            f"{place}: expected {len(images)} labels, one an image. Received {labels.dtype} of "
            f"shape {labels.shape}. Put files of the same set there."
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < NUM_CLASSES:
        raise DataError(
            f"{place}: expected labels from 0 to 9. Received {labels.min()} to {labels.max()}. Put "
            "the files of MNIST there."
        )

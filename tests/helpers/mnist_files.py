"""Files as MNIST has them, of the digits that come with scikit-learn."""

import gzip
import struct
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from trainers.data.datasets.mnist import IDX_FILES
from trainers.data.datasets.mnist import Digits
from trainers.utils.resampling import square_crop

NUM_TRAIN = 1_500  # of the training file, and the rest for tests


def real_digits() -> Digits:
    """Returns 1,797 digits of 28x28 pixels, whose ink lies in the middle as in MNIST."""
    ink, labels = load_digits(return_X_y=True)
    bytes_ = np.round(ink * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    images = np.zeros((len(bytes_), 28, 28), np.uint8)
    images[:, 4:24, 4:24] = [square_crop(image, 0, 0, 8, 20)[:, :, 0] for image in bytes_]
    return Digits(images, labels.astype(np.int64))


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes bytes as an IDX file; packed if the name ends in .gz."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, digits: Digits, suffix: str = "") -> Path:
    """Writes the four IDX files into a folder and returns it."""
    folder.mkdir(exist_ok=True)
    border = {"train": slice(NUM_TRAIN), "test": slice(NUM_TRAIN, None)}
    for part, (image_file, label_file) in IDX_FILES.items():
        write_idx(folder / f"{image_file}{suffix}", digits.images[border[part]])
        write_idx(folder / f"{label_file}{suffix}", digits.labels[border[part]])
    return folder

"""Small sources for the tests of the input pipeline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf


class ArraySource:
    """Images in memory; the first two bytes of each image spell its index."""

    name = "array"
    split = "train"

    def __init__(
        self,
        num_examples: int,
        num_classes: int = 5,
        size: tuple[int, int] = (8, 8),
        labels: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.num_examples = num_examples
        self.num_classes = num_classes
        self.size = size
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (max(num_examples, 1), *size, 3), dtype=np.uint8)
        positions = np.arange(len(images))
        images[:, 0, 0, 0] = positions % 256
        images[:, 0, 0, 1] = positions // 256
        self.images = images
        self.labels = positions % num_classes if labels is None else labels

    def load(self, index: Any) -> dict[str, Any]:
        """Return one example; an index out of range fails."""
        with tf.control_dependencies(
            [tf.debugging.Assert((index >= 0) & (index < self.num_examples), [index])]
            if not tf.executing_eagerly()
            else []
        ):
            image = tf.gather(tf.constant(self.images), index)
        return {
            "image": tf.ensure_shape(image, (*self.size, 3)),
            "label": tf.gather(tf.constant(self.labels, tf.int64), index),
        }


class FileSource:
    """Image files by their paths, all of class 0."""

    name = "folder"
    split = "train"
    num_classes = 2

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)
        self.num_examples = len(self.paths)

    def load(self, index: Any) -> dict[str, Any]:
        """Return one example."""
        path = tf.gather(tf.constant(self.paths), index)
        return {
            "encoded": tf.io.read_file(path),
            "identity": path,
            "label": tf.constant(0, tf.int64),
        }


def spelled_indices(images: npt.NDArray[np.uint8]) -> list[int]:
    """Return the index spelled by each image of an `ArraySource`."""
    return [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in images]


def photograph(height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """Return a smooth picture without symmetry, darker than it could be."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red = 40 + 150 * x / width
    green = 60 + 100 * (y / height) ** 2
    blue = 90 + 60 * np.sin(x + y / 3.0)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)

"""A source whose images all lie in memory."""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class InMemorySource:
    """Labelled images from arrays.

    Args:
        name: of the source, for messages.
        split: "train", "validation" or "test".
        images: (count, height, width, 3) uint8, or grey: (count, height, width, 1)
            or (count, height, width), which `load` turns into three equal channels.
        labels: (count,) whole numbers, positions in `class_names`.
        class_names: of all classes, also of those that this split lacks.

    Raises:
        ValueError: wrong shapes, dtypes or labels.
    """

    def __init__(
        self,
        name: str,
        split: str,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        class_names: tuple[str, ...],
    ) -> None:
        if images.ndim == 3:
            images = images[..., None]
        _check(images, labels, len(class_names))
        self.name = name
        self.split = split
        self.num_examples = len(labels)
        self.class_names = tuple(class_names)
        # Eager tensors are captured by reference by the function that calls `load`;
        # as constants they would be copied into its graph, which ends at 2 GB.
        with tf.device("CPU"):
            self._images = tf.convert_to_tensor(images)
            self._labels = tf.convert_to_tensor(labels.astype(np.int64))

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads one example; see `trainers.data.sources.Source`."""
        image = tf.gather(self._images, index)
        if image.shape[-1] == 1:
            image = tf.repeat(image, 3, axis=-1)  # (H, W, 3)
        return {"image": image, "label": tf.gather(self._labels, index)}


def _check(images: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            "images must be uint8 of shape (count, height, width, 1 or 3), received "
            f"{images.dtype} of shape {images.shape}."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be whole numbers of shape ({len(images)},), one an image, "
            f"received {labels.dtype} of shape {labels.shape}."
        )
    if not len(labels):
        raise ValueError("At least one image is needed, received none.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels must lie in 0 to {num_classes - 1} for {num_classes} class "
            f"names, received {labels.min()} to {labels.max()}."
        )

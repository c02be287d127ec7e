"""Serves images or videos that lie in memory, or in a mapped file, as a data source."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class InMemorySource:
    """A `Source` of labelled images, or of videos of one size; raises ValueError for wrong arrays.

    Args:
        pixels: uint8; videos (count, frames, height, width, 3), or images (count, height, width,
            3), or grey images (count, height, width, 1) or (count, height, width), which `load`
            turns into three equal channels. Those of a mapped file (`mode="c"`) are not copied.
        labels: (count,) whole numbers, positions in `class_names`, or, for several labels
            at once, (count, classes) floating-point zeros and ones.
        class_names: all classes, including those that this split lacks.
        mirrored_classes: for each class the one that a mirrored example of it shows, a
            permutation; None where mirroring changes no label.
    """

    def __init__(
        self,
        name: str,
        split: str,
        pixels: NDArray[np.uint8],
        labels: NDArray[Any],
        class_names: tuple[str, ...],
        mirrored_classes: tuple[int, ...] | None = None,
    ) -> None:
        if pixels.ndim == 3:
            pixels = pixels.reshape(*pixels.shape, 1)
        _check_pixels(pixels)
        _check_labels(labels, len(pixels), len(class_names))
        if mirrored_classes is not None:
            _check_mirrored(mirrored_classes, len(class_names))
        self.name = name
        self.split = split
        self.num_examples = len(labels)
        self.class_names = tuple(class_names)
        self.mirrored_classes = mirrored_classes
        self._kind = "video" if pixels.ndim == 5 else "image"
        # The function that calls `load` captures eager tensors by reference; constants
        # would be copied into its graph, which is limited to 2 GB.
        with tf.device("CPU"):
            self._pixels = _tensor(pixels)
            dtype = np.int64 if labels.ndim == 1 else np.float32
            self._labels = tf.convert_to_tensor(labels.astype(dtype))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.gather(self._pixels, index)
        if pixels.shape[-1] == 1:
            pixels = tf.repeat(pixels, 3, axis=-1)  # (H, W, 3)
        label = tf.gather(self._labels, index)
        example = {self._kind: pixels, "label": label}
        if self.mirrored_classes is not None:
            mirrored = tf.constant(self.mirrored_classes, tf.int64)
            # The permutation is its own inverse, so it also reorders a vector of labels.
            either = (label, mirrored) if label.shape.rank else (mirrored, label)
            example["mirrored_label"] = tf.gather(*either)
        return example


def _tensor(array: NDArray[np.uint8]) -> tf.Tensor:
    if isinstance(array, np.memmap):
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.convert_to_tensor(array)


def _check_pixels(pixels: NDArray[np.uint8]) -> None:
    channels = {4: (1, 3), 5: (3,)}.get(pixels.ndim, ())
    if pixels.dtype != np.uint8 or pixels.shape[-1] not in channels:
        raise ValueError(
            "pixels must be uint8 of shape (count, height, width, 1 or 3) or "
            f"(count, frames, height, width, 3), received {pixels.dtype} of shape {pixels.shape}."
        )
    if not len(pixels):
        raise ValueError("At least one example is needed, received none.")


def _check_labels(labels: NDArray[Any], count: int, num_classes: int) -> None:
    if labels.shape == (count, num_classes) and np.isin(labels, (0, 1)).all():
        return
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be whole numbers of shape ({count},), one an example, or zeros and "
            f"ones of shape ({count}, {num_classes}), received {labels.dtype} of shape "
            f"{labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels must lie in 0 to {num_classes - 1} for {num_classes} class "
            f"names, received {labels.min()} to {labels.max()}."
        )


def _check_mirrored(mirrored_classes: tuple[int, ...], num_classes: int) -> None:
    places = list(range(num_classes))
    back = [mirrored_classes[i] for i in mirrored_classes if 0 <= i < num_classes]
    if sorted(mirrored_classes) != places or back != places:
        raise ValueError(
            f"mirrored_classes must name each of {num_classes} classes once, and mirrored "
            f"twice each must be itself again, received {mirrored_classes}."
        )

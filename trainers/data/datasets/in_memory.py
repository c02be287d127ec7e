"""Serves images or videos that lie in memory as data sources."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class InMemorySource:
    """A `Source` of labelled images in arrays; raises ValueError for wrong arrays.

    Args:
        name: of the source, for messages.
        split: "train", "validation" or "test".
        images: (count, height, width, 3) uint8, or grey: (count, height, width, 1)
            or (count, height, width), which `load` turns into three equal channels.
        labels: (count,) whole numbers, positions in `class_names`.
        class_names: all classes, including those that this split lacks.
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
        # The function that calls `load` captures eager tensors by reference; constants
        # would be copied into its graph, which is limited to 2 GB.
        with tf.device("CPU"):
            self._images = tf.convert_to_tensor(images)
            self._labels = tf.convert_to_tensor(labels.astype(np.int64))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
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


class InMemoryVideoSource:
    """A `Source` of labelled videos of one size in arrays; raises ValueError for wrong ones.

    Args:
        name: of the source, for messages.
        split: "train", "validation" or "test".
        videos: (count, frames, height, width, 3) uint8.
        labels: (count,) whole numbers, positions in `class_names`, or, for several labels
            at once, (count, classes) floating-point zeros and ones.
        class_names: all classes, including those that this split lacks.
        mirrored_classes: for each class the one that a mirrored video of it shows, a
            permutation; None where mirroring changes no label.
    """

    def __init__(
        self,
        name: str,
        split: str,
        videos: NDArray[np.uint8],
        labels: NDArray[Any],
        class_names: tuple[str, ...],
        mirrored_classes: tuple[int, ...] | None = None,
    ) -> None:
        _check_videos(videos, labels, len(class_names))
        if mirrored_classes is not None:
            _check_mirrored(mirrored_classes, len(class_names))
        self.name = name
        self.split = split
        self.num_examples = len(labels)
        self.class_names = tuple(class_names)
        self.mirrored_classes = mirrored_classes
        # See `InMemorySource` for why these are eager tensors.
        dtype = np.int64 if labels.ndim == 1 else np.float32
        with tf.device("CPU"):
            self._videos = tf.convert_to_tensor(videos)
            self._labels = tf.convert_to_tensor(labels.astype(dtype))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        label = tf.gather(self._labels, index)
        example = {"video": tf.gather(self._videos, index), "label": label}
        if self.mirrored_classes is not None:
            mirrored = tf.constant(self.mirrored_classes, tf.int64)
            # The permutation is its own inverse, so it also reorders a vector of labels.
            either = (label, mirrored) if label.shape.rank else (mirrored, label)
            example["mirrored_label"] = tf.gather(*either)
        return example


def _check_videos(videos: NDArray[np.uint8], labels: NDArray[Any], num_classes: int) -> None:
    if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
        raise ValueError(
            "videos must be uint8 of shape (count, frames, height, width, 3), received "
            f"{videos.dtype} of shape {videos.shape}."
        )
    if not len(videos):
        raise ValueError("At least one video is needed, received none.")
    if labels.ndim == 2:
        _check_several(labels, (len(videos), num_classes))
        return
    if labels.shape != videos.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be whole numbers of shape ({len(videos)},), one a video, or zeros "
            f"and ones of shape ({len(videos)}, {num_classes}), received {labels.dtype} of "
            f"shape {labels.shape}."
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


def _check_several(labels: NDArray[Any], shape: tuple[int, int]) -> None:
    if labels.shape != shape or not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"labels of several classes must be zeros and ones of shape {shape}, received "
            f"{labels.dtype} of shape {labels.shape} from {labels.min()} to {labels.max()}."
        )

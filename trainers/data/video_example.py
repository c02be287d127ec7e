"""The record of one video."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.configuration.data_options import RecordsConfig
from trainers.data.conversion_options import ConversionOptions
from trainers.data.video_list import VideoRow
from trainers.utils.errors import DataError

MAX_BYTES = 2_000_000_000  # a protocol buffer ends at 2 GiB; the rest is for names and labels
_BYTES_AROUND_A_FRAME = 32  # lengths and types of the messages it lies in


def make_record(
    row: VideoRow,
    frames: Iterable[NDArray[np.uint8]],
    label_numbers: dict[str, int],
    options: ConversionOptions,
) -> bytes:
    """Returns a `tf.train.SequenceExample` as DMVR reads it.

    Args:
        row: where the frames are from.
        frames: (height, width, 3) each, at least one.
        label_numbers: from the name of a class to its number.
        options: quality and frame rate.

    Returns:
        The record; the same arguments give the same bytes.

    Raises:
        DataError: the frames differ in size, or are too many for one record.
    """
    keys = RecordsConfig()
    example = tf.train.SequenceExample()
    context = example.context.feature
    numbers = sorted(label_numbers[label] for label in row.labels)
    names = sorted(row.labels, key=label_numbers.__getitem__)
    images = example.feature_lists.feature_list[keys.image_key].feature
    height, width = _add_frames(images, frames, options.jpeg_quality)
    start = row.start or 0.0
    duration = len(images) / options.frames_per_second
    context[keys.label_key].int64_list.value.extend(numbers)
    context["clip/label/text"].bytes_list.value.extend(name.encode() for name in names)
    context["clip/start/timestamp"].int64_list.value.append(round(start * 1e6))
    context["clip/end/timestamp"].int64_list.value.append(round((start + duration) * 1e6))
    context["video/filename"].bytes_list.value.append(row.name.encode())
    context["image/frame_rate"].float_list.value.append(options.frames_per_second)
    context["image/height"].int64_list.value.append(height)
    context["image/width"].int64_list.value.append(width)
    content: bytes = example.SerializeToString(deterministic=True)
    return content


def _add_frames(images: Any, frames: Iterable[NDArray[np.uint8]], quality: int) -> tuple[int, int]:
    """Adds a JPEG a frame; returns height and width of all of them."""
    size: tuple[int, ...] = ()
    num_bytes = 0
    for pixels in frames:
        size = size or pixels.shape[:2]
        if pixels.shape[:2] != size:
            raise DataError(
                f"frame {len(images)} has {pixels.shape[0]} x {pixels.shape[1]} pixels, those "
                f"before it {size[0]} x {size[1]}; a video must keep its size"
            )
        with tf.device("CPU"):
            encoded = tf.io.encode_jpeg(pixels, quality=quality).numpy()
        num_bytes += len(encoded) + _BYTES_AROUND_A_FRAME
        if num_bytes > MAX_BYTES:
            raise DataError(
                f"a record holds at most {MAX_BYTES} bytes, of this video {len(images)} frames; "
                "set start and end, a row for each part"
            )
        images.add().bytes_list.value.append(encoded)
    height, width = size
    return height, width

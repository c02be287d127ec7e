"""Small videos for the tests of the input pipeline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tests.helpers.fake_source import photograph

Frames = npt.NDArray[np.uint8]


def numbered_video(num_frames: int, height: int = 24, width: int = 32) -> Frames:
    """Return a photograph in every frame, with the number of the frame as its blue."""
    video = np.stack([photograph(height, width)] * num_frames)
    video[..., 2] = np.arange(num_frames)[:, None, None]
    return video


def frame_numbers(clips: npt.NDArray[np.uint8]) -> list[Any]:
    """Return the numbers that the frames of a numbered video show, (..., frames)."""
    numbers: list[Any] = clips[..., 0, 0, 2].tolist()
    return numbers


def encoded(video: Frames | Sequence[Frames]) -> dict[str, tf.Tensor]:
    """Return the example of a source that holds each frame as a PNG file."""
    frames = [tf.io.encode_png(frame) for frame in video]
    return {
        "frames": tf.stack(frames) if frames else tf.zeros((0,), tf.string),
        "identity": tf.constant("clips.tfrecord"),
    }


class EncodedVideoSource:
    """Videos of any number of encoded frames, all of class 0, each in a file of its own."""

    name = "records"
    split = "train"
    num_classes = 2
    class_names = ("a", "b")

    def __init__(self, videos: Sequence[Sequence[bytes]], names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.videos = tf.ragged.constant(videos, dtype=tf.string, ragged_rank=1)
        self.num_examples = len(videos)

    def load(self, index: Any) -> dict[str, Any]:
        """Return one example."""
        return {
            "frames": self.videos[index],
            "identity": tf.gather(tf.constant(self.names), index),
            "label": tf.constant(0, tf.int64),
        }

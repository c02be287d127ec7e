"""Small TFRecords of videos for the tests: JPEG frames that spell which video they are of."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.data.records.manifest import shard_name

NOT_AN_IMAGE = b"not an image"


@dataclass(frozen=True)
class SmallVideo:
    """One record to write.

    Attributes:
        number: which video it is; `number_of` reads it from any of its frames.
        labels: numbers of its classes; none or several for several labels.
        num_frames: how many.
        size: height and width of its frames.
        corrupt_frame: the frame that is no image, None if all are good.
    """

    number: int
    labels: tuple[int, ...] = (0,)
    num_frames: int = 8
    size: tuple[int, int] = (24, 32)
    corrupt_frame: int | None = None


def frame_pixels(video: SmallVideo, frame: int) -> NDArray[np.uint8]:
    """Returns (height, width, 3): red says which video, green which frame, blue is a slope."""
    pixels = np.zeros((*video.size, 3), np.uint8)
    pixels[..., 0] = 16 + 8 * (video.number % 28)
    pixels[..., 1] = 8 + 4 * (frame % 60)
    pixels[..., 2] = np.linspace(0, 255, video.size[1])
    return pixels


def number_of(frame: NDArray[np.uint8]) -> int:
    """Returns the number, modulo 28, of the video that a frame or clip was cut from."""
    return round((float(np.mean(frame[..., 0])) - 16) / 8)


def frame_of(frame: NDArray[np.uint8]) -> int:
    """Returns which frame of its video, modulo 60, a decoded frame is."""
    return round((float(np.mean(frame[..., 1])) - 8) / 4)


def sequence_example(
    video: SmallVideo, image_key: str = "image/encoded", label_key: str = "clip/label/index"
) -> bytes:
    """Returns the record of a video, with all keys that DMVR's examples have."""
    example = tf.train.SequenceExample()
    context = example.context.feature
    context[label_key].int64_list.value.extend(video.labels)
    context["clip/label/text"].bytes_list.value.extend(b"class %d" % n for n in video.labels)
    context["clip/start/timestamp"].int64_list.value.append(0)
    context["clip/end/timestamp"].int64_list.value.append(video.num_frames * 40_000)
    context["clip/media_id"].bytes_list.value.append(b"%d" % video.number)
    context["video/filename"].bytes_list.value.append(b"%d.mp4" % video.number)
    context["image/frame_rate"].float_list.value.append(25.0)
    for name, size in zip(("height", "width", "channels"), (*video.size, 3), strict=True):
        context[f"image/{name}"].int64_list.value.append(size)
    context["image/format"].bytes_list.value.append(b"JPEG")
    frames = example.feature_lists.feature_list[image_key]
    for number in range(video.num_frames):
        encoded = tf.io.encode_jpeg(frame_pixels(video, number), quality=95).numpy()
        corrupt = number == video.corrupt_frame
        frames.feature.add().bytes_list.value.append(NOT_AN_IMAGE if corrupt else encoded)
    content: bytes = example.SerializeToString(deterministic=True)
    return content


def write_split(
    data_dir: Path,
    split: str,
    videos: Sequence[SmallVideo],
    num_shards: int = 2,
    image_key: str = "image/encoded",
    label_key: str = "clip/label/index",
) -> list[Path]:
    """Writes a split: as many consecutive videos to a file as to the next, one more or less."""
    data_dir.mkdir(parents=True, exist_ok=True)
    paths = [data_dir / shard_name(split, number, num_shards) for number in range(num_shards)]
    for number, path in enumerate(paths):
        first = number * len(videos) // num_shards
        stop = (number + 1) * len(videos) // num_shards
        with tf.io.TFRecordWriter(str(path)) as writer:
            for video in videos[first:stop]:
                writer.write(sequence_example(video, image_key, label_key))
    return paths


def describe(data_dir: Path, class_names: Sequence[str], multi_label: bool = False) -> None:
    """Writes the label map and `dataset.json`, as the converter does."""
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / "labels.txt").write_text("".join(f"{name}\n" for name in class_names))
    description = {"multi_label": multi_label, "num_classes": len(class_names)}
    (data_dir / "dataset.json").write_text(json.dumps(description))


def small_videos(count: int, num_classes: int = 3, multi_label: bool = False) -> list[SmallVideo]:
    """Returns videos of 1, 5, 9, … 29, 1, … frames; of several labels none, one or two."""
    videos = []
    for number in range(count):
        labels: tuple[int, ...] = (number % num_classes,)
        if multi_label:
            labels = tuple((number + more) % num_classes for more in range(number % 3))
        videos.append(SmallVideo(number, labels, num_frames=1 + 4 * (number % 8)))
    return videos


def write_small_set(data_dir: Path, num_classes: int = 3, multi_label: bool = False) -> Path:
    """Writes 12 videos to train on, 5 to validate and 4 to test, with all small files."""
    describe(data_dir, [f"class {number}" for number in range(num_classes)], multi_label)
    for split, count in (("train", 12), ("validation", 5), ("test", 4)):
        write_split(data_dir, split, small_videos(count, num_classes, multi_label))
    return data_dir

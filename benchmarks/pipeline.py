"""Images and frames a second of the input pipeline, beside nothing but JPEG decoding.

    taskset -c 0 python -m benchmarks.pipeline [--workdir=DIR] [--turns=9]

Photographs and frames are put together from windows of scikit-learn's two sample photographs. The
files of 500-pixel photographs have the size of most ImageNet files. Writes `results/pipeline.csv`;
`wall_ratio` is relative to decoding alone, `per_core_second` counts the processor's time. The
arms `half` and `scaled` are `decode` at half scale, and `pipeline` with `data.scaled_decoding`.
"""

import dataclasses
import functools
import io
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.timing import Seconds
from benchmarks.timing import environment
from benchmarks.timing import time_in_turns
from benchmarks.timing import timed
from benchmarks.timing import write_csv
from trainers.configuration.data_options import INTERPOLATIONS
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.pipeline import training_dataset
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.images import inception_window
from trainers.data.shuffling import augmentation_seeds
from trainers.data.shuffling import shuffled_examples
from trainers.data.shuffling import step_positions
from trainers.data.sources import Source
from trainers.data.sources import make_source

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "workdir/pipeline", "Where the images go.")
flags.DEFINE_integer("turns", 9, "Turns that count.", lower_bound=1)
flags.DEFINE_integer("batches", 4, "Batches a turn.", lower_bound=1)

IMAGE_SIZE = (224, 224)
BATCH_SIZE = 64
CLIPS = 4  # of a batch
NUM_IMAGES = 256
NUM_VIDEOS = 4
NUM_FRAMES = 16
SEED = 0
#: (rows, columns) of windows of a photograph -> the quality of its JPEG.
PHOTOGRAPHS = {(1, 1): 97, (2, 2): 90}
HEIGHT, WIDTH = 375, 500  # of a window
#: Height and width of frames: those that `trainers.make_video_records` writes, and those of a file.
FRAMES = ((256, 340), (720, 1280))
FRAME_QUALITY = 95

Datasets = dict[str, tf.data.Dataset]


@dataclasses.dataclass
class VideoSource:
    """Videos of JPEG frames in memory, (videos, frames), all of class 0."""

    frames: tf.Tensor
    name: str = "records"
    split: str = "train"
    num_examples: int = NUM_VIDEOS
    num_classes: int = 1
    class_names: tuple[str, ...] = ("video",)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"frames": tf.gather(self.frames, index), "label": tf.constant(0, tf.int64)}


def main(_: list[str]) -> None:
    rows = []
    for facts, count, datasets in (*_image_cases(), *_video_cases()):
        times = time_in_turns(datasets, FLAGS.turns, "decode", _timed)
        for name, result in times.items():
            images = count * FLAGS.batches
            speed = {"per_core_second": round(images / result["cpu_seconds"], 1)}
            versions = environment("tensorflow")
            rows.append({**facts, "arm": name, "images": images, **speed, **result, **versions})
            print(rows[-1], flush=True)
    print(write_csv("pipeline", rows))


def _image_cases() -> Iterator[tuple[dict[str, Any], int, Datasets]]:
    for shape, quality in PHOTOGRAPHS.items():
        height, width = shape[0] * HEIGHT, shape[1] * WIDTH
        folder = Path(FLAGS.workdir) / f"photographs_{width}"
        _write_images(folder, shape, quality)
        source = make_source("folder", "train", str(folder))
        size = np.mean([path.stat().st_size for path in folder.rglob("*.jpg")])
        for interpolation in INTERPOLATIONS:
            config = PreprocessingConfig(IMAGE_SIZE, interpolation=interpolation)
            datasets = _of_images(source, config, height, width)
            _compare(datasets["resize"], datasets["pipeline"])
            yield _facts(f"photographs of {height}x{width}", config, size), BATCH_SIZE, datasets


def _video_cases() -> Iterator[tuple[dict[str, Any], int, Datasets]]:
    config = VideoPreprocessingConfig(IMAGE_SIZE, NUM_FRAMES)
    for height, width in FRAMES:
        videos = [_video(number, height, width) for number in range(NUM_VIDEOS)]
        size = np.mean([len(frame) for video in videos for frame in video])
        datasets = _of_videos(VideoSource(tf.constant(videos)), config)
        yield _facts(f"frames of {height}x{width}", config, size), CLIPS * NUM_FRAMES, datasets


def _facts(inputs: str, config: Preprocessing, mean_file_bytes: np.floating[Any]) -> dict[str, Any]:
    return {
        "inputs": inputs,
        "interpolation": config.interpolation,
        "mean_file_bytes": round(float(mean_file_bytes)),
    }


@functools.cache
def _photographs() -> list[NDArray[np.uint8]]:
    photographs: list[NDArray[np.uint8]] = load_sample_images().images
    return photographs


def _windows(number: int, shape: tuple[int, int], height: int, width: int) -> NDArray[np.uint8]:
    """Returns windows of the two photographs side by side: enlarged ones would lack detail."""
    generator = np.random.default_rng(number)

    def window() -> NDArray[np.uint8]:
        photograph = _photographs()[generator.integers(2)]
        top = int(generator.integers(photograph.shape[0] - height + 1))
        left = int(generator.integers(photograph.shape[1] - width + 1))
        pixels: NDArray[np.uint8] = photograph[top : top + height, left : left + width]
        return pixels

    return np.block([[[window()] for _ in range(shape[1])] for _ in range(shape[0])])


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _write_images(folder: Path, shape: tuple[int, int], quality: int) -> None:
    for number in range(NUM_IMAGES):
        path = folder / "train" / ("even", "odd")[number % 2] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_jpeg(_windows(number, shape, HEIGHT, WIDTH), quality))


def _video(number: int, height: int, width: int) -> list[bytes]:
    """Returns the frames of a still that moves to the right."""
    shape = (height // 300 + 1, width // 600 + 1)
    moves = 2 * NUM_FRAMES
    still = _windows(number, shape, height // shape[0], width // shape[1] + moves)
    return [_jpeg(still[:, move : move + width], FRAME_QUALITY) for move in range(moves)]


def _of_images(source: Source, config: PreprocessingConfig, height: int, width: int) -> Datasets:
    """Returns the trainer's pipelines, and parts of them on bytes that are read beforehand."""
    addresses = tf.data.Dataset.counter().map(lambda step: _addresses(step, source)).unbatch()
    encoded = tf.stack([source.load(index)["encoded"] for index in tf.range(source.num_examples)])

    def decode(index: tf.Tensor, seed: tf.Tensor, divisor: int = 1) -> tf.Tensor:
        window = inception_window(tf.constant(height), tf.constant(width), seed, config) // divisor
        return tf.io.decode_and_crop_jpeg(encoded[index], window, channels=3, ratio=divisor)

    def resize(index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        image = tf.image.resize(decode(index, seed), config.image_size, config.interpolation)
        return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)

    return {
        "decode": _parallel(addresses, lambda index, seed: tf.shape(decode(index, seed))),
        "half": _parallel(addresses, lambda index, seed: tf.shape(decode(index, seed, 2))),
        "resize": _parallel(addresses, resize),
        **_pipelines(source, config, BATCH_SIZE),
    }


def _of_videos(source: VideoSource, config: VideoPreprocessingConfig) -> Datasets:
    numbers = tf.data.Dataset.range(source.num_examples).repeat()

    def decode(index: tf.Tensor, divisor: int) -> tf.Tensor:
        return tf.map_fn(
            lambda frame: tf.shape(tf.io.decode_jpeg(frame, channels=3, ratio=divisor)),
            tf.gather(source.frames, index)[:: config.stride],
            fn_output_signature=tf.int32,
        )

    return {
        "decode": _parallel(numbers, functools.partial(decode, divisor=1), CLIPS),
        "half": _parallel(numbers, functools.partial(decode, divisor=2), CLIPS),
        **_pipelines(source, config, CLIPS),
    }


def _pipelines(source: Source, config: Preprocessing, batch_size: int) -> Datasets:
    scaled = dataclasses.replace(config, scaled_decoding=True)
    return {
        name: training_dataset(source, each, batch_size=batch_size, seed=SEED)
        for name, each in (("pipeline", config), ("scaled", scaled))
    }


def _addresses(step: tf.Tensor, source: Source) -> tuple[tf.Tensor, tf.Tensor]:
    positions = step_positions(step, BATCH_SIZE)
    indices, epochs = shuffled_examples(positions, source.num_examples, SEED)
    return indices, augmentation_seeds(indices, epochs, SEED)


def _parallel(
    dataset: tf.data.Dataset, work: Callable[..., tf.Tensor], batch_size: int = BATCH_SIZE
) -> tf.data.Dataset:
    dataset = dataset.map(work, num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(options)


def _timed(dataset: tf.data.Dataset) -> Seconds:
    """Times a turn's batches, without the start.

    One iterator for all turns would be read ahead during the turns of the others.
    """
    batches = iter(dataset)
    next(batches)
    return timed(lambda: [next(batches) for _ in range(FLAGS.batches)])


def _compare(resized: tf.data.Dataset, batches: tf.data.Dataset) -> None:
    """Compares a batch of the pipeline with decoding and resizing only, mirrored or not."""
    expected, found = next(iter(resized)).numpy(), next(iter(batches))["image"].numpy()
    for one, other in zip(expected, found, strict=True):
        if not (np.array_equal(one, other) or np.array_equal(one[:, ::-1], other)):
            raise SystemExit("The pipeline gives other images than decoding and resizing.")


if __name__ == "__main__":
    app.run(main)

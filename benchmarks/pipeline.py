"""Images a second of the input pipeline, beside nothing but JPEG decoding.

    python -m benchmarks.pipeline [--workdir=DIR] [--turns=9]

The images are windows of scikit-learn's two sample photographs, of the size of most ImageNet
files. Writes `results/pipeline.csv`; `wall_ratio` is relative to decoding alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.timing import environment
from benchmarks.timing import time_in_turns
from benchmarks.timing import write_csv
from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.pipeline import training_dataset
from trainers.data.preprocessing.images import inception_window
from trainers.data.shuffling import augmentation_seeds
from trainers.data.shuffling import shuffled_examples
from trainers.data.shuffling import step_positions
from trainers.data.sources import Source
from trainers.data.sources import make_source

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "workdir/pipeline", "Where the images go.")
flags.DEFINE_integer("turns", 9, "Turns that count.", lower_bound=1)
flags.DEFINE_integer("batches", 16, "Batches a turn.", lower_bound=1)

BATCH_SIZE = 64
NUM_IMAGES = 256
SEED = 0
HEIGHT, WIDTH = 375, 500
JPEG_QUALITY = 97


def main(_: list[str]) -> None:
    folder = Path(FLAGS.workdir) / "images"
    _write_images(folder)
    source = make_source("folder", "train", str(folder))
    sizes = [path.stat().st_size for path in folder.rglob("*.jpg")]
    mean_size = round(float(np.mean(sizes)))
    rows = []
    for interpolation in ("bilinear", "bicubic"):
        config = PreprocessingConfig((224, 224), interpolation=interpolation)
        datasets = _datasets(source, config)
        _compare(datasets["resize"], datasets["pipeline"])
        candidates = {name: _taker(dataset) for name, dataset in datasets.items()}
        times = time_in_turns(candidates, FLAGS.turns, "decode")
        for name, result in times.items():
            images = BATCH_SIZE * FLAGS.batches
            rows.append(
                {
                    "interpolation": interpolation,
                    "arm": name,
                    "images": images,
                    "images_per_second": round(images / result["wall_seconds"], 1),
                    **result,
                    "mean_file_bytes": mean_size,
                    **environment("tensorflow"),
                }
            )
            print(rows[-1], flush=True)
    print(write_csv("pipeline", rows))


def _write_images(folder: Path) -> None:
    """Writes different windows of the two photographs, one class each."""
    generator = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        photograph = load_sample_images().images[number % 2]
        top = int(generator.integers(photograph.shape[0] - HEIGHT + 1))
        left = int(generator.integers(photograph.shape[1] - WIDTH + 1))
        path = folder / "train" / ("china", "flower")[number % 2] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        window = photograph[top : top + HEIGHT, left : left + WIDTH]
        Image.fromarray(window).save(path, quality=JPEG_QUALITY)


def _datasets(source: Source, config: PreprocessingConfig) -> dict[str, tf.data.Dataset]:
    """Returns the trainer's pipeline, and parts of it on bytes that are read beforehand."""
    addresses = tf.data.Dataset.counter().map(lambda step: _addresses(step, source)).unbatch()
    encoded = tf.stack([source.load(index)["encoded"] for index in tf.range(source.num_examples)])

    def decode(index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        window = inception_window(tf.constant(HEIGHT), tf.constant(WIDTH), seed, config)
        return tf.io.decode_and_crop_jpeg(encoded[index], window, channels=3)

    def resize(index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        image = tf.image.resize(decode(index, seed), config.image_size, config.interpolation)
        return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)

    pipeline = training_dataset(source, config, batch_size=BATCH_SIZE, seed=SEED)
    return {
        "decode": _parallel(addresses, lambda *address: tf.shape(decode(*address))),
        "resize": _parallel(addresses, resize),
        "pipeline": pipeline.map(lambda batch: batch["image"]),
    }


def _addresses(step: tf.Tensor, source: Source) -> tuple[tf.Tensor, tf.Tensor]:
    positions = step_positions(step, BATCH_SIZE)
    indices, epochs = shuffled_examples(positions, source.num_examples, SEED)
    return indices, augmentation_seeds(indices, epochs, SEED)


def _parallel(dataset: tf.data.Dataset, work: Callable[..., tf.Tensor]) -> tf.data.Dataset:
    dataset = dataset.map(work, num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE).with_options(options)


def _taker(dataset: tf.data.Dataset) -> Callable[[], None]:
    """Returns a function that takes a turn's batches, from the first one on.

    One iterator for all turns would be read ahead during the turns of the others.
    """

    def take() -> None:
        for _ in dataset.take(FLAGS.batches):
            pass

    return take


def _compare(resized: tf.data.Dataset, batches: Any) -> None:
    """Compares a batch of the pipeline with decoding and resizing only, mirrored or not."""
    expected, found = next(iter(resized)).numpy(), next(iter(batches)).numpy()
    for one, other in zip(expected, found, strict=True):
        if not (np.array_equal(one, other) or np.array_equal(one[:, ::-1], other)):
            raise SystemExit("The pipeline gives other images than decoding and resizing.")


if __name__ == "__main__":
    app.run(main)

"""Small data sets of 100 files a split: images as TFDS prepares them, and videos."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.reliability.damaged_shards import frame
from trainers.data.datasets.tfds import import_tfds
from trainers.data.records.manifest import shard_name

SHARDS = 100
RECORDS = 4  # of each file
CLASSES = 4
SIDE = 16
SPLITS = ("train", "validation")


def write_images(folder: Path) -> None:
    """Writes a data set `small_images` by TFDS itself."""
    tfds = import_tfds()

    class SmallImages(  # type: ignore[call-arg]
        tfds.core.GeneratorBasedBuilder,  # type: ignore[name-defined]
        skip_registration=True,
    ):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = Path(__file__).parent
        code_path = Path(__file__)
        name = "small_images"

        def _info(self) -> Any:
            image = tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png")
            label = tfds.features.ClassLabel(num_classes=CLASSES)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager: object) -> dict[str, Any]:
            # Without a test split, TFDS's validation split would be it.
            return {split: self._generate_examples() for split in (*SPLITS, "test")}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for number in range(SHARDS * RECORDS):
                yield number, {"image": _pixels(number), "label": number % CLASSES}

    options = tfds.download.DownloadConfig(num_shards=SHARDS)
    SmallImages(data_dir=str(folder)).download_and_prepare(download_config=options)


def write_videos(folder: Path) -> None:
    """Writes TFRecords of videos with their small files."""
    folder.mkdir(parents=True)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in "abcd"))
    description = {"multi_label": False, "num_classes": CLASSES}
    (folder / "dataset.json").write_text(json.dumps(description))
    for split in SPLITS:
        for shard in range(SHARDS):
            payload = b"".join(frame(_video(shard * RECORDS + each)) for each in range(RECORDS))
            (folder / shard_name(split, shard, SHARDS)).write_bytes(payload)


def shards_of(folder: Path, split: str) -> list[Path]:
    """Returns the files of a split of either set, in order."""
    return sorted(path for path in folder.rglob(f"*{split}.tfrecord-*"))


def _pixels(number: int) -> Any:
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


def _video(number: int) -> bytes:
    example = tf.train.SequenceExample()
    context = example.context.feature
    context["clip/label/index"].int64_list.value.append(number % CLASSES)
    context["video/filename"].bytes_list.value.append(b"%d.mp4" % number)
    frames = example.feature_lists.feature_list["image/encoded"]
    encoded = tf.io.encode_png(_pixels(number)).numpy()
    for _ in range(2):
        frames.feature.add().bytes_list.value.append(encoded)
    content: bytes = example.SerializeToString(deterministic=True)
    return content

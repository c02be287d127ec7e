"""Small data sets under the names and with the features of public ones, by TFDS's own writer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

FILE_FORMATS = ("tfrecord", "array_record")
_PIXELS = 48


class _Photographs(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder,  # type: ignore[name-defined]
    skip_registration=True,
):
    """Random pixels, which are brighter the larger the label is."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS would look for an installed package.
    pkg_dir_path = Path(__file__).parent
    code_path = Path(__file__)
    num_classes: ClassVar[int]
    counts: ClassVar[dict[str, int]]
    without_labels: ClassVar[str | None] = None

    def _info(self) -> Any:
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(self.features()))

    def features(self) -> dict[str, Any]:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        return {"image": image, "label": self.class_label(), "file_name": tfds.features.Text()}

    def class_label(self) -> Any:
        return tfds.features.ClassLabel(num_classes=self.num_classes)

    def _split_generators(self, dl_manager: object) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self.counts}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(self.counts[split]):
            label = number % self.num_classes
            pixels = np.random.default_rng(number).integers(0, 128, (_PIXELS, _PIXELS, 3))
            image = (pixels + 127 * label // self.num_classes).astype(np.uint8)
            secret = split == self.without_labels
            yield (
                number,
                {
                    "image": image,
                    **self.labels(number, -1 if secret else label),
                    "file_name": f"{split}_{number}.jpeg",
                },
            )

    def labels(self, number: int, label: int) -> dict[str, Any]:
        return {"label": label}


class ImageNet(_Photographs, skip_registration=True):  # type: ignore[call-arg]
    name = "imagenet2012"
    num_classes = 1000
    counts: ClassVar[dict[str, int]] = {"train": 20, "validation": 6, "test": 3}
    without_labels = "test"


class ImageNetReal(_Photographs, skip_registration=True):  # type: ignore[call-arg]
    """The third image has no label, as some of ReaL have none."""

    name = "imagenet2012_real"
    num_classes = 1000
    counts: ClassVar[dict[str, int]] = {"validation": 6}

    def features(self) -> dict[str, Any]:
        features = super().features()
        label = features.pop("label")
        return {
            **features,
            "original_label": label,
            "real_label": tfds.features.Sequence(self.class_label()),
        }

    def labels(self, number: int, label: int) -> dict[str, Any]:
        real = [] if number == 2 else [label, label + 1]
        return {"original_label": label, "real_label": real}


class ImageNetV2(_Photographs, skip_registration=True):  # type: ignore[call-arg]
    name = "imagenet_v2"
    num_classes = 1000
    counts: ClassVar[dict[str, int]] = {"test": 5}
    BUILDER_CONFIGS: ClassVar[list[Any]] = [tfds.core.BuilderConfig(name="matched-frequency")]


class Cifar10(_Photographs, skip_registration=True):  # type: ignore[call-arg]
    name = "cifar10"
    num_classes = 10
    counts: ClassVar[dict[str, int]] = {"train": 40, "test": 10}


class Cifar100(Cifar10, skip_registration=True):  # type: ignore[call-arg]
    name = "cifar100"
    num_classes = 100


class Ucf101(_Photographs, skip_registration=True):  # type: ignore[call-arg]
    """Videos of 1, 3, 5, 7 or 9 frames, under the features of the public set."""

    name = "ucf101"
    num_classes = 101
    counts: ClassVar[dict[str, int]] = {"train": 40, "test": 7}
    BUILDER_CONFIGS: ClassVar[list[Any]] = [tfds.core.BuilderConfig(name="ucf101_1_256")]

    def features(self) -> dict[str, Any]:
        return {
            "video": tfds.features.Video(shape=(None, _PIXELS, _PIXELS, 3)),
            "label": self.class_label(),
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, example in super()._generate_examples(split):
            image = example["image"]
            video = np.stack([image + frame for frame in range(1 + 2 * (number % 5))])
            yield number, {"video": video, "label": example["label"]}


SETS = (ImageNet, ImageNetReal, ImageNetV2, Cifar10, Cifar100, Ucf101)


def write_sets(data_dir: Path, file_format: str = "tfrecord") -> None:
    """Writes all of `SETS`, of two shards a split."""
    options = tfds.download.DownloadConfig(num_shards=2)
    for builder_class in SETS:
        builder = builder_class(data_dir=str(data_dir), file_format=file_format)
        builder.download_and_prepare(download_config=options)

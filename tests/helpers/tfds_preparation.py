"""A data set of TFDS that leaves all to TFDS, as the public ones do, and its preparation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds


class Greys(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder,  # type: ignore[name-defined]
    skip_registration=True,
):
    """Images of one grey value."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Any]:
        return {"train": self._generate_examples(8), "test": self._generate_examples(2)}

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(count):
            image = np.full((4, 4, 3), 255 * (number % 2), np.uint8)
            yield number, {"image": image, "label": number % 2}


def prepare(data_dir: str) -> None:
    """Prepares the data set and reads it with our trainer."""
    from trainers.data.sources import make_source

    builder = Greys(data_dir=data_dir)
    assert builder.code_path.name == "tfds_preparation.py", builder.code_path
    builder.download_and_prepare()
    source = make_source("tfds:greys", "train", data_dir)
    assert source.num_classes == 2, source.num_classes

"""TFDS data sets that the tests write with TFDS's own writer."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf

from trainers.data.datasets.tfds import RecordRange
from trainers.data.datasets.tfds import TfdsSource
from trainers.data.datasets.tfds import plan_splits
from trainers.data.sources import SPLITS
from trainers.data.sources import make_source
from trainers.utils.errors import ConfigurationError

tfds = pytest.importorskip("tensorflow_datasets")


class Squares(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder,  # type: ignore[name-defined]
    skip_registration=True,
):
    """Images whose grey value is their number."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent  # TFDS would look for an installed package
    counts: ClassVar[dict[str, int]] = {"train": 40, "validation": 8, "test": 6}
    test_label: ClassVar[int | None] = None
    image_key: ClassVar[str] = "image"

    def _info(self) -> Any:
        features = {
            self.image_key: tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
            "number": np.int64,
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, Any]:
        return {name: self._generate_examples(name) for name in self.counts}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        secret = split == "test" and self.test_label is not None
        for number in range(self.counts[split]):
            yield (
                number,
                {
                    self.image_key: np.full((6, 7, 3), number, np.uint8),
                    "label": self.test_label if secret else number % 2,
                    "number": number,
                },
            )


def prepare(tmp_path: Path, file_format: str = "tfrecord", **attributes: Any) -> str:
    builder_class = type("Squares", (Squares,), attributes, skip_registration=True)
    builder = builder_class(data_dir=str(tmp_path), file_format=file_format)
    config = tfds.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(download_config=config)
    return str(tmp_path)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_every_record_of_many_shards(tmp_path: Path, file_format: str) -> None:
    if file_format == "array_record":
        pytest.importorskip("array_record")
    data_dir = prepare(tmp_path, file_format)
    assert len(list(tmp_path.glob("squares/1.0.0/squares-train*"))) == 3
    for split in SPLITS:
        source = make_source("tfds:squares", split, data_dir)
        assert source.num_examples == Squares.counts[split]
        assert source.class_names == ("even", "odd")
        dataset = tf.data.Dataset.range(source.num_examples)
        dataset = dataset.map(source.load, num_parallel_calls=2)
        assert dataset.element_spec["label"].shape == ()
        numbers = set()
        for example in dataset.as_numpy_iterator():
            image = tf.io.decode_image(example["encoded"]).numpy()
            assert image.shape == (6, 7, 3)
            assert example["label"] == image[0, 0, 0] % 2
            assert b"squares-" + split.encode() in example["identity"]
            numbers.add(int(image[0, 0, 0]))
        assert numbers == set(range(Squares.counts[split]))


def test_version_can_be_named(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path)
    assert TfdsSource("squares:1.0.0", "test", data_dir).num_examples == 6


def test_secret_test_labels(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path, test_label=-1)
    counts = [TfdsSource("squares", s, data_dir).num_examples for s in SPLITS]
    assert counts == [36, 4, 8]


@pytest.mark.parametrize("split", ["train", "test"])
def test_videos_in_place_of_images(tmp_path: Path, split: str) -> None:
    data_dir = prepare(tmp_path, counts={"train": 3, "test": 3})
    video = tf.train.SequenceExample()
    video.feature_lists.feature_list["image/encoded"].feature.add()
    for path in tmp_path.glob(f"squares/1.0.0/squares-{split}.*"):
        count = sum(1 for _ in tf.data.TFRecordDataset(str(path)))
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(count):
                writer.write(video.SerializeToString())
    message = (
        rf"squares-{split}.* is a tf\.train\.SequenceExample, with the feature lists image/enc.*\. "
        r"Expected a tf\.train\.Example, with the features image and label.*data\.source=records"
    )
    with pytest.raises(ConfigurationError, match=message):
        TfdsSource("squares", split, data_dir)


def test_not_prepared_tells_the_command(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path)
    for name in ("mnist", "squares:2.0.0", "squares/large"):
        with pytest.raises(ConfigurationError) as caught:
            TfdsSource(name, "train", data_dir)
        message = str(caught.value)
        assert f"tfds.builder('{name}', data_dir='{data_dir}')" in message
        assert "download_and_prepare()" in message
        assert "found there: squares" in message


def test_missing_name() -> None:
    with pytest.raises(ConfigurationError, match="lacks a name"):
        make_source("tfds:", "train", None)


def test_other_features_are_listed(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path, image_key="picture")
    with pytest.raises(ConfigurationError, match=r"found.*picture: Image"):
        TfdsSource("squares", "train", data_dir)


@pytest.mark.parametrize(
    ("sizes", "labelled", "expected"),
    [
        (
            {"train": 100, "validation": 9, "test": 8},
            True,
            [("train", 0, 100), ("validation", 0, 9), ("test", 0, 8)],
        ),
        (
            {"train": 100, "test": 8},
            True,
            [("train", 0, 90), ("train", 90, 100), ("test", 0, 8)],
        ),
        (
            {"train": 1_281_167, "validation": 50_000, "test": 100_000},
            False,
            [
                ("train", 0, 1_268_356),
                ("train", 1_268_356, 1_281_167),
                ("validation", 0, 50_000),
            ],
        ),
        (
            {"train": 100, "validation": 9},
            False,
            [("train", 0, 90), ("train", 90, 100), ("validation", 0, 9)],
        ),
        (
            {"train": 100},
            False,
            [("train", 0, 80), ("train", 80, 90), ("train", 90, 100)],
        ),
    ],
)
def test_plan(sizes: dict[str, int], labelled: bool, expected: list[tuple[str, int, int]]) -> None:
    plan = plan_splits(sizes, labelled)
    assert [plan[split] for split in SPLITS] == [RecordRange(*e) for e in expected]


def test_whole_train_holds_what_is_kept_for_validation() -> None:
    plan = plan_splits({"train": 100, "validation": 9}, False)
    assert plan["whole_train"] == RecordRange("train", 0, 100)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_plan_of_a_set_to_test_with(name: str) -> None:
    assert plan_splits({name: 8}, True) == {"test": RecordRange(name, 0, 8)}


def test_plan_without_labels() -> None:
    with pytest.raises(ConfigurationError, match="received test, extra"):
        plan_splits({"test": 8, "extra": 7}, False)


def test_a_set_to_test_with_has_no_train_split(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path, counts={"test": 6})
    assert TfdsSource("squares", "test", data_dir).num_examples == 6
    with pytest.raises(ConfigurationError, match=r"too small for a train split.*6 test"):
        TfdsSource("squares", "train", data_dir)


def test_videos(tmp_path: Path) -> None:
    from tests.helpers.tfds_sets import Ucf101

    builder = Ucf101(data_dir=str(tmp_path), file_format="tfrecord")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    counts = {}
    for split in SPLITS:
        source = make_source("tfds:ucf101", split, str(tmp_path))
        counts[split] = source.num_examples
        assert source.num_classes == 101
        dataset = tf.data.Dataset.range(source.num_examples).map(source.load)
        assert dataset.element_spec["frames"] == tf.TensorSpec((None,), tf.string)
        assert dataset.element_spec["label"] == tf.TensorSpec((), tf.int64)
        for example in dataset.as_numpy_iterator():
            assert len(example["frames"]) == 1 + 2 * (example["label"] % 5)
            assert tf.io.decode_image(example["frames"][-1]).shape == (48, 48, 3)
            assert b"ucf101-" in example["identity"] and b", record " in example["identity"]
    assert counts == {"train": 36, "validation": 4, "test": 7}


def test_a_builder_that_leaves_all_to_tfds_is_prepared(tmp_path: Path) -> None:
    """Where only the extra `train` is installed, too: the session `package` does the same."""
    from tests.helpers.tfds_preparation import prepare as prepare_greys

    prepare_greys(str(tmp_path))


def test_the_extra_brings_what_tfds_does_not_declare() -> None:
    text = (Path(__file__).parents[4] / "pyproject.toml").read_text(encoding="utf-8")
    extra = tomllib.loads(text)["project"]["optional-dependencies"]["train"]
    assert any(each.startswith("importlib_resources") for each in extra)

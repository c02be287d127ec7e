"""Sources by name, from memory, digits and solar cells."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from trainers.data.datasets.digits import digits_source
from trainers.data.datasets.elpv import class_labels
from trainers.data.datasets.elpv import elpv_source
from trainers.data.datasets.elpv import split_indexes
from trainers.data.datasets.in_memory import InMemorySource
from trainers.data.sources import SPLITS
from trainers.data.sources import make_source
from trainers.utils.errors import ConfigurationError


def read_all(source: object) -> list[dict[str, np.ndarray]]:
    """Reads every example through tf.data, as the pipeline does."""
    dataset = tf.data.Dataset.range(source.num_examples)  # type: ignore[attr-defined]
    dataset = dataset.map(source.load, num_parallel_calls=2)  # type: ignore[attr-defined]
    return list(dataset.as_numpy_iterator())


def test_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'freedoom_objects'"):
        make_source("fredoom_object", "train", None)


def test_unknown_split_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'validation'"):
        make_source("digits", "valid", None)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_in_memory_source(channels: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, *channels), np.uint8)
    labels = np.array([0, 1, 2, 1, 0])
    source = InMemorySource("x", "train", images, labels, ("a", "b", "c"))
    examples = read_all(source)
    assert source.num_examples == 5
    assert source.num_classes == 3
    assert [example["label"] for example in examples] == labels.tolist()
    assert examples[0]["label"].dtype == np.int64
    for example, image in zip(examples, images, strict=True):
        assert example["image"].dtype == np.uint8
        expected = np.broadcast_to(image.reshape(4, 6, -1), (4, 6, 3))
        np.testing.assert_array_equal(example["image"], expected)


def test_in_memory_images_do_not_enter_the_graph() -> None:
    images = np.zeros((1000, 32, 32, 3), np.uint8)
    source = InMemorySource("x", "train", images, np.zeros(1000, int), ("a",))
    signature = tf.TensorSpec([], tf.int64)
    graph = tf.function(source.load).get_concrete_function(signature).graph
    assert graph.as_graph_def().ByteSize() < 10_000


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2, 4, 4, 2), [0, 0], "shape"),
        ((2, 4, 4, 3), [0], "one an example"),
        ((2, 4, 4, 3), [0, 2], "0 to 1"),
        ((2, 4, 4, 3), [0.0, 1.0], "whole numbers"),
        ((0, 4, 4, 3), np.zeros(0, int), "none"),
    ],
)
def test_in_memory_source_rejects(shape: tuple[int, ...], labels: list[int], message: str) -> None:
    images = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match=message):
        InMemorySource("x", "train", images, np.array(labels), ("a", "b"))


def test_digits() -> None:
    sources = [make_source("digits", split, None) for split in SPLITS]
    assert [source.num_examples for source in sources] == [1258, 269, 270]
    image = read_all(sources[0])[0]["image"]
    assert image.shape == (8, 8, 3)
    pixels = np.concatenate([read_all(source) for source in sources])
    assert max(example["image"].max() for example in pixels) == 255
    assert sources[0].class_names == tuple("0123456789")


def test_digits_splits_are_disjoint_and_fixed() -> None:
    first, second = read_all(digits_source("test")), read_all(digits_source("test"))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
    train = {example["image"].tobytes() for example in read_all(digits_source("train"))}
    test = {example["image"].tobytes() for example in first}
    assert not train & test


def test_elpv_splits_are_whole_blocks() -> None:
    parts = [split_indexes(2624, split) for split in SPLITS]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(2624))
    for part in parts:
        blocks = np.unique(part // 60)
        covered = np.isin(np.arange(2624) // 60, blocks)
        assert covered.sum() == len(part)


def test_elpv_classes() -> None:
    probability = np.array([0.0, 1 / 3, 2 / 3, 1.0])
    cell_type = np.array(["mono", "poly", "mono", "poly"])
    assert class_labels(probability, cell_type).tolist() == [0, 2, 1, 3]


def test_elpv_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(ConfigurationError, match="pip install elpv-dataset"):
        elpv_source("train")


def test_elpv_loads() -> None:
    pytest.importorskip("elpv_dataset")
    source = elpv_source("test")
    assert source.load(tf.constant(0, tf.int64))["image"].shape == (300, 300, 3)
    assert source.num_classes == 4

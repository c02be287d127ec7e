"""Videos in memory: one label or several; mapped files."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.datasets.in_memory import InMemorySource
from trainers.data.pipeline import training_dataset

NAMES = ("a", "b", "c")


def videos(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (np.array([0, 2, 1, 0], np.int32), np.int64),
        (np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1]], np.float64), np.float32),
    ],
)
def test_examples(labels: np.ndarray, dtype: type) -> None:
    source = InMemorySource("x", "train", videos(), labels, NAMES)
    assert (source.num_examples, source.num_classes, source.class_names) == (4, 3, NAMES)
    dataset = tf.data.Dataset.range(4).map(source.load, num_parallel_calls=2)
    examples = list(dataset.as_numpy_iterator())
    assert len(examples) == 4
    for example, video, label in zip(examples, videos(), labels, strict=True):
        assert example["label"].dtype == dtype
        np.testing.assert_array_equal(example["video"], video)
        np.testing.assert_array_equal(example["label"], label)


def test_videos_do_not_enter_the_graph() -> None:
    clips = np.zeros((100, 8, 32, 32, 3), np.uint8)
    source = InMemorySource("x", "train", clips, np.zeros(100, int), ("a",))
    signature = tf.TensorSpec([], tf.int64)
    graph = tf.function(source.load).get_concrete_function(signature).graph
    assert graph.as_graph_def().ByteSize() < 10_000


@pytest.mark.parametrize(
    ("clips", "labels", "message"),
    [
        (videos()[..., :1], [0] * 4, "shape"),
        (videos()[:, 0, :, :, :2], [0] * 4, "shape"),
        (videos()[:, 0, 0, 0], [0] * 4, "shape"),
        (videos(), [0, 1], "one an example"),
        (videos(), [0, 1, 2, 3], "0 to 2"),
        (videos(), [0.0, 1.0, 2.0, 1.0], "whole numbers"),
        (videos(), np.zeros((4, 2)), "zeros and ones"),
        (videos(), np.full((4, 3), 0.5), "zeros and ones"),
        (videos(0), np.zeros(0, int), "none"),
    ],
)
def test_wrong_arrays(clips: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InMemorySource("x", "train", clips, np.array(labels), NAMES)


@pytest.mark.parametrize(
    ("labels", "mirrored"),
    [
        (np.array([0, 2, 1, 0]), np.array([1, 2, 0, 1])),
        (np.array([[1, 0, 1], [0, 0, 0]]), np.array([[0, 1, 1], [0, 0, 0]])),
    ],
)
def test_labels_in_a_mirror(labels: np.ndarray, mirrored: np.ndarray) -> None:
    source = InMemorySource("x", "train", videos(len(labels)), labels, NAMES, (1, 0, 2))
    found = [source.load(tf.constant(i, tf.int64))["mirrored_label"] for i in range(len(labels))]
    np.testing.assert_array_equal(found, mirrored)


@pytest.mark.parametrize("mirrored", [(1, 0), (1, 2, 0), (0, 0, 2), (-1, 0, 2)])
def test_a_mirror_swaps_pairs(mirrored: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="mirrored twice"):
        InMemorySource("x", "train", videos(), np.zeros(4, int), NAMES, mirrored)


@pytest.mark.parametrize("several", [False, True])
def test_labels_follow_mirrored_training_clips(several: bool) -> None:
    """Class 0 is brighter to the right, class 1 to the left; class 2 says nothing of it."""
    to_the_right = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None] * 30, (3, 8, 8, 3))
    clips = np.stack([to_the_right, to_the_right[:, :, ::-1]])
    labels = np.array([[1, 0, 1], [0, 1, 1]]) if several else np.array([0, 1])
    source = InMemorySource("x", "train", clips, labels, NAMES, (1, 0, 2))
    config = VideoPreprocessingConfig((8, 8), 2, stride=1, min_resize=8, scale_jitter=None)
    batches = training_dataset(source, config, batch_size=32, seed=0).take(1)
    (batch,) = batches.as_numpy_iterator()
    brighter_to_the_right = batch["image"][:, 0, 0, -1, 0] > batch["image"][:, 0, 0, 0, 0]
    assert 0 < brighter_to_the_right.sum() < 32
    np.testing.assert_array_equal(batch["target"][:, 0], brighter_to_the_right)
    np.testing.assert_array_equal(batch["target"][:, 1], ~brighter_to_the_right)
    assert (batch["target"][:, 2] == several).all()


@pytest.mark.parametrize("grey", [False, True])
def test_mapped_files_are_shared(tmp_path: Path, grey: bool) -> None:
    """A change to the file's memory shows: nothing was copied."""
    images = videos()[:, 0, :, :, 0] if grey else videos()[:, 0]
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    source = InMemorySource("x", "train", mapped, np.zeros(4, int), NAMES)
    mapped[2] = 7
    (example,) = tf.data.Dataset.range(2, 3).map(source.load).as_numpy_iterator()
    assert example["image"].shape == (4, 6, 3)
    assert (example["image"] == 7).all()
    del mapped
    (example,) = tf.data.Dataset.range(1, 2).map(source.load).as_numpy_iterator()
    np.testing.assert_array_equal(
        example["image"][..., 0], images[1] if grey else images[1, ..., 0]
    )

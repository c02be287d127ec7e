"""Videos in memory: one label or several."""

import numpy as np
import pytest
import tensorflow as tf

from trainers.data.in_memory_video import InMemoryVideoSource

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
    source = InMemoryVideoSource("x", "train", videos(), labels, NAMES)
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
    source = InMemoryVideoSource("x", "train", clips, np.zeros(100, int), ("a",))
    signature = tf.TensorSpec([], tf.int64)
    graph = tf.function(source.load).get_concrete_function(signature).graph
    assert graph.as_graph_def().ByteSize() < 10_000


@pytest.mark.parametrize(
    ("clips", "labels", "message"),
    [
        (videos()[..., :1], [0] * 4, "shape"),
        (videos()[:, 0], [0] * 4, "shape"),
        (videos(), [0, 1], "one a video"),
        (videos(), [0, 1, 2, 3], "0 to 2"),
        (videos(), [0.0, 1.0, 2.0, 1.0], "whole numbers"),
        (videos(), np.zeros((4, 2)), "zeros and ones"),
        (videos(), np.full((4, 3), 0.5), "zeros and ones"),
        (videos(0), np.zeros(0, int), "none"),
    ],
)
def test_wrong_arrays(clips: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InMemoryVideoSource("x", "train", clips, np.array(labels), NAMES)

"""Frames of clips: the published rules, for videos of any length."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies

from trainers.data.preprocessing.videos import order_frames
from trainers.data.preprocessing.videos import training_frames
from trainers.data.preprocessing.videos import view_frames

LENGTHS = strategies.integers(1, 400)
FRAMES = strategies.integers(1, 40)
STRIDES = strategies.integers(1, 9)
# TensorFlow draws multiples of 2**-23.
DRAWS = strategies.integers(0, 2**23 - 1).map(lambda number: number / 2**23)

properties = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def _tiled(start: int, length: int, num_frames: int, stride: int) -> list[int]:
    """Return the clip from a video that is literally repeated until it is long enough."""
    repeated = list(range(length)) * (1 + (start + num_frames * stride) // length)
    return repeated[start:][: num_frames * stride : stride]


@given(LENGTHS, FRAMES, STRIDES, DRAWS)
@properties
def test_training_clip(length: int, num_frames: int, stride: int, draw: float) -> None:
    frames = training_frames(tf.constant(length), num_frames, stride, tf.constant(draw))
    assert frames.dtype == tf.int32
    choices = max(length - (num_frames - 1) * stride, 1)
    start = int(frames[0])
    assert start == int(draw * choices) and start < choices
    assert frames.numpy().tolist() == _tiled(start, length, num_frames, stride)
    if length > (num_frames - 1) * stride:
        assert set(np.diff(frames)) <= {stride}  # nothing repeats in a video that is long enough


@given(LENGTHS, FRAMES, STRIDES)
@properties
def test_middle_clip(length: int, num_frames: int, stride: int) -> None:
    (frames,) = view_frames(tf.constant(length), num_frames, stride, 1)
    start = max((length - num_frames * stride) // 2, 0)
    assert frames.numpy().tolist() == _tiled(start, length, num_frames, stride)


@given(LENGTHS, FRAMES, STRIDES, strategies.integers(2, 12))
@properties
def test_clips_of_a_test(length: int, num_frames: int, stride: int, num_views: int) -> None:
    frames = view_frames(tf.constant(length), num_frames, stride, num_views)
    last = max(length - num_frames * stride, 0)
    # linspace may fall below a whole number by its rounding.
    starts = np.floor(np.linspace(0, last, num_views) + 1e-9).astype(int)
    expected = [_tiled(start, length, num_frames, stride) for start in starts]
    assert frames.numpy().tolist() == expected


def test_published_example() -> None:
    frames = view_frames(tf.constant(250), 32, 2, 4)
    assert frames[:, 0].numpy().tolist() == [0, 62, 124, 186]
    assert frames[3].numpy().tolist() == list(range(186, 250, 2))


def test_a_single_view_is_the_middle() -> None:
    frames = view_frames(tf.constant(250), 32, 2, 1)
    assert frames.numpy().tolist() == [list(range(93, 157, 2))]


def test_every_start_of_a_training_clip_is_drawn() -> None:
    draws = tf.random.stateless_uniform((400,), (0, 1), alg="philox")
    first = tf.function(lambda draw: training_frames(tf.constant(17), 4, 3, draw)[0])
    starts = [int(first(draw)) for draw in draws]
    counts = np.bincount(starts)
    assert len(counts) == 8 and counts.min() > 25  # 50 expected


def test_shapes_are_known_without_the_length() -> None:
    @tf.function(input_signature=[tf.TensorSpec((), tf.int32)])
    def shapes(length: tf.Tensor) -> tf.Tensor:
        seen.append(training_frames(length, 5, 2, tf.constant(0.5)).shape)
        seen.append(view_frames(length, 5, 2, 1).shape)
        views = view_frames(length, 5, 2, 3)
        seen.append(order_frames(views, "repeated").shape)
        seen.append(order_frames(views, "shuffled", tf.constant([0, 1])).shape)
        return length

    seen: list[tuple[int, ...]] = []
    shapes(tf.constant(7))
    assert seen == [(5,), (1, 5), (3, 5), (3, 5)]


def test_orders() -> None:
    frames = tf.constant([[0, 2, 4, 6], [10, 12, 14, 16]])
    np.testing.assert_array_equal(order_frames(frames, "natural"), frames)
    repeated = order_frames(frames, "repeated").numpy()
    assert repeated.tolist() == [[4] * 4, [14] * 4]
    assert order_frames(frames[0, :3], "repeated").numpy().tolist() == [2, 2, 2]


def test_shuffled_clips_hold_their_own_frames_in_orders_of_their_own() -> None:
    frames = tf.constant([list(range(16)), list(range(100, 116))])
    shuffled = order_frames(frames, "shuffled", tf.constant([3, 4])).numpy()
    np.testing.assert_array_equal(np.sort(shuffled), frames)
    assert not np.array_equal(shuffled[0], shuffled[1] - 100)
    again = order_frames(frames, "shuffled", tf.constant([3, 4])).numpy()
    np.testing.assert_array_equal(again, shuffled)
    other = order_frames(frames, "shuffled", tf.constant([3, 5])).numpy()
    assert not np.array_equal(other, shuffled)


@pytest.mark.parametrize("place", range(4))
def test_shuffling_is_even(place: int) -> None:
    clips = tf.tile([[0, 1, 2, 3]], (200, 1))
    shuffled = order_frames(clips, "shuffled", tf.constant([0, 1])).numpy()
    assert np.bincount(shuffled[:, place], minlength=4).min() > 30  # 50 expected

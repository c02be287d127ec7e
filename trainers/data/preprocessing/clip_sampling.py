"""Chooses the frames of a clip.

A clip is `num_frames` frames, `stride` apart. A video that is too short for it is
repeated from its start: a clip never holds invented frames, and even a video of a
single frame becomes a clip.
"""

import tensorflow as tf


def training_frames(length: tf.Tensor, num_frames: int, stride: int, draw: tf.Tensor) -> tf.Tensor:
    """Returns the frames of a clip from anywhere in the video, int32 (num_frames,).

    `length` is the number of frames of the video, int32 (), 1 or more. `draw` is float32 (),
    uniform in [0, 1): all clips that lie within the video are equally likely.
    """
    starts = tf.maximum(length - (num_frames - 1) * stride, 1)
    start = tf.cast(draw * tf.cast(starts, tf.float32), tf.int32)
    return _clip_frames(start, length, num_frames, stride)


def middle_frames(length: tf.Tensor, num_frames: int, stride: int) -> tf.Tensor:
    """Returns the frames of the clip in the middle of the video, int32 (num_frames,).

    The clip counts as `num_frames * stride` frames long, the gap after its last frame
    included.
    """
    start = tf.maximum(length - num_frames * stride, 0) // 2
    return _clip_frames(start, length, num_frames, stride)


def view_frames(length: tf.Tensor, num_frames: int, stride: int, num_views: int) -> tf.Tensor:
    """Returns the frames of several clips at equal distances, int32 (num_views, num_frames).

    The first clip begins with the video, the last ends with it, the gap after its last
    frame included; starts in between are rounded down. A single clip is the middle one.
    """
    if num_views == 1:
        return middle_frames(length, num_frames, stride)[tf.newaxis]
    last_start = tf.maximum(length - num_frames * stride, 0)
    # Whole numbers, because a float32 spacing may fall just below the exact one.
    starts = tf.range(num_views) * last_start // (num_views - 1)
    return _clip_frames(starts[:, tf.newaxis], length, num_frames, stride)


def order_frames(frames: tf.Tensor, frame_order: str, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the frames of clips, int32 (..., num_frames), in another order, for experiments.

    "natural" keeps the order, "repeated" shows the middle frame of each clip (the later of two)
    everywhere, "shuffled" shuffles each clip differently. `seed` is a stateless seed, integer (2,).
    """
    if frame_order == "natural":
        return frames
    if frame_order == "repeated":
        middle = frames.shape[-1] // 2
        return tf.broadcast_to(frames[..., middle, tf.newaxis], frames.shape)
    draws = tf.random.stateless_uniform(frames.shape, seed, alg="philox")
    return tf.gather(frames, tf.argsort(draws), batch_dims=frames.shape.rank - 1)


def _clip_frames(start: tf.Tensor, length: tf.Tensor, num_frames: int, stride: int) -> tf.Tensor:
    # The remainder repeats a video that is too short.
    return (start + tf.range(0, num_frames * stride, stride)) % length

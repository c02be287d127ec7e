"""Chooses the frames of a clip.

A clip is `num_frames` frames, `stride` apart. A video that is too short for it is
repeated from its start: a clip never holds frames that were made up, and a video of a
single frame becomes a clip as well.
"""

import tensorflow as tf


def training_frames(length: tf.Tensor, num_frames: int, stride: int, draw: tf.Tensor) -> tf.Tensor:
    """Return the frames of a clip from anywhere in the video.

    Args:
        length: frames of the video, int32 (), 1 or more.
        num_frames: of the clip.
        stride: distance of two of them.
        draw: float32 (), uniform in [0, 1): every clip that lies within the video has
            the same chance.

    Returns:
        int32 (num_frames,), each less than `length`.
    """
    starts = tf.maximum(length - (num_frames - 1) * stride, 1)
    start = tf.cast(draw * tf.cast(starts, tf.float32), tf.int32)
    return _clip_frames(start, length, num_frames, stride)


def middle_frames(length: tf.Tensor, num_frames: int, stride: int) -> tf.Tensor:
    """Return the frames of the clip in the middle of the video.

    The clip counts as `num_frames * stride` frames long, the gap after its last frame
    included.

    Args:
        length: frames of the video, int32 (), 1 or more.
        num_frames: of the clip.
        stride: distance of two of them.

    Returns:
        int32 (num_frames,), each less than `length`.
    """
    start = tf.maximum(length - num_frames * stride, 0) // 2
    return _clip_frames(start, length, num_frames, stride)


def view_frames(length: tf.Tensor, num_frames: int, stride: int, num_views: int) -> tf.Tensor:
    """Return the frames of several clips at equal distances over the whole video.

    The first clip begins with the video, the last ends with it, the gap after its last
    frame included; starts in between are rounded down. A single clip is the middle one.

    Args:
        length: frames of the video, int32 (), 1 or more.
        num_frames: of each clip.
        stride: distance of two of them.
        num_views: number of clips.

    Returns:
        int32 (num_views, num_frames), each less than `length`.
    """
    if num_views == 1:
        return middle_frames(length, num_frames, stride)[tf.newaxis]
    last_start = tf.maximum(length - num_frames * stride, 0)
    # Whole numbers: a spacing in float32 may fall just below the one that is meant.
    starts = tf.range(num_views) * last_start // (num_views - 1)
    return _clip_frames(starts[:, tf.newaxis], length, num_frames, stride)


def order_frames(frames: tf.Tensor, frame_order: str, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Return the frames of clips in another order, for control experiments.

    Args:
        frames: int32 (..., num_frames), one clip or several.
        frame_order: "natural" returns them as they are, "repeated" the middle frame of
            each clip (the later one of two) in all places, "shuffled" each clip in an
            order of its own.
        seed: stateless seed of the shuffle, integer (2,).

    Returns:
        int32 of the same shape.
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

"""Makes clips of fixed size from videos: frames, crops, flips and augmentation, all from one seed.

What is drawn for a clip is drawn once and applies to all its frames. Clips stay uint8, as images.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.augmentation import color_drop
from trainers.data.preprocessing.augmentation import color_jitter
from trainers.data.preprocessing.augmentation import randaugment
from trainers.data.preprocessing.augmentation import random_erasing
from trainers.data.preprocessing.augmentation import resize
from trainers.data.preprocessing.augmentation import to_bytes
from trainers.data.preprocessing.augmentation import to_channels
from trainers.data.preprocessing.decoding import Example
from trainers.data.preprocessing.decoding import decode_frames
from trainers.data.preprocessing.decoding import frame_size
from trainers.data.preprocessing.decoding import video_length

# Numbers folded into the seed of an example, so that no two draws share a stream.
_ORDER_STREAM = 1
_RANDAUGMENT_STREAM = 2
_COLOR_JITTER_STREAM = 3
_COLOR_DROP_STREAM = 4
_ERASING_STREAM = 5

_FLIPPED_SHARE = 0.5
_LARGEST_INT64 = 2**63 - 1


def train_clip(example: Example, seed: tf.Tensor, config: VideoPreprocessingConfig) -> tf.Tensor:
    """Takes, resizes, cuts, flips and augments one training clip.

    `seed` is a stateless seed, int32 or int64 (2,). The result is uint8 (frames, height, width,
    channels) of `config.num_frames`, `config.image_size` and `config.channels`.
    """
    start, scale_y, scale_x, shift_y, shift_x, flip = _draws(seed)
    indices = training_frames(video_length(example), config.num_frames, config.stride, start)
    indices = order_frames(indices, config.frame_order, _stream(seed, _ORDER_STREAM))
    size = _resized_size(frame_size(example, indices[0]), config, (scale_y, scale_x))
    begins = tf.cast(size - config.image_size + 1, tf.float32)
    begin = tf.cast(tf.stack([shift_y, shift_x]) * begins, tf.int32)
    clip = _windows(example, indices, size, [begin], config)[0]
    clip = tf.ensure_shape(clip, (config.num_frames, *config.image_size, config.channels))
    if config.flip:
        flips = flip < _FLIPPED_SHARE
        clip = tf.cond(flips, lambda: tf.reverse(clip, [2]), lambda: tf.identity(clip))
    return _augmented(clip, seed, config)


def is_mirrored(seed: tf.Tensor, config: VideoPreprocessingConfig) -> tf.Tensor:
    """Returns whether `train_clip` mirrors its clip for this seed; then the label must follow."""
    return tf.logical_and(config.flip, _draws(seed)[-1] < _FLIPPED_SHARE)


def evaluation_clip(example: Example, config: VideoPreprocessingConfig) -> tf.Tensor:
    """Cuts the centre out of the clip in the middle of one evaluation example; see `train_clip`."""
    one_view = dataclasses.replace(config, temporal_views=1, spatial_views=1)
    return evaluation_views(example, one_view)[0]


def evaluation_views(example: Example, config: VideoPreprocessingConfig) -> tf.Tensor:
    """Cuts all views of one test example, uint8 (views, frames, height, width, channels).

    Three windows lie at the start, the centre and the end of the side that exceeds the window by
    more; left to right where both are equal. The centre of an odd number of free pixels is rounded
    up, to the right and down. Each frame is decoded and resized once, however many views show it.

    All clips of the first window come first, from the start of the video to its end, then all of
    the second: view `window * temporal_views + clip`. The "shuffled" order of each clip depends on
    the content of the video; nothing is random.
    """
    length = video_length(example)
    indices = view_frames(length, config.num_frames, config.stride, config.temporal_views)
    seed = _content_seed(example) if config.frame_order == "shuffled" else None
    indices = order_frames(indices, config.frame_order, seed)
    size = _resized_size(frame_size(example, indices[0, 0]), config)
    views = _windows(example, indices, size, _window_begins(size, config), config)
    views = tf.concat(views, axis=0)  # (windows * clips, frames, height, width, C)
    shape = (config.num_views, config.num_frames, *config.image_size, config.channels)
    return tf.ensure_shape(views, shape)


def training_frames(length: tf.Tensor, num_frames: int, stride: int, draw: tf.Tensor) -> tf.Tensor:
    """Returns the frames of a clip from anywhere in the video, int32 (num_frames,).

    `draw` is uniform in [0, 1): all clips that lie within the video are equally likely.
    """
    starts = tf.maximum(length - (num_frames - 1) * stride, 1)
    start = tf.cast(draw * tf.cast(starts, tf.float32), tf.int32)
    return _clip_frames(start, length, num_frames, stride)


def view_frames(length: tf.Tensor, num_frames: int, stride: int, num_views: int) -> tf.Tensor:
    """Returns the frames of several clips at equal distances, int32 (num_views, num_frames).

    The first clip begins with the video, the last ends with it, the gap after its last
    frame included; starts in between are rounded down. A single clip is the middle one.
    """
    last_start = tf.maximum(length - num_frames * stride, 0)
    if num_views == 1:
        starts = last_start[tf.newaxis] // 2
    else:
        # Whole numbers, because a float32 spacing may fall just below the exact one.
        starts = tf.range(num_views) * last_start // (num_views - 1)
    return _clip_frames(starts[:, tf.newaxis], length, num_frames, stride)


def order_frames(frames: tf.Tensor, frame_order: str, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the frames of clips, int32 (..., num_frames), in another order, for experiments.

    "natural" keeps the order, "repeated" shows the middle frame of each clip (the later of two)
    everywhere, "shuffled" shuffles each clip differently.
    """
    if frame_order == "natural":
        return frames
    if frame_order == "repeated":
        middle = frames.shape[-1] // 2
        return tf.broadcast_to(frames[..., middle, tf.newaxis], frames.shape)
    draws = tf.random.stateless_uniform(frames.shape, seed, alg="philox")
    return tf.gather(frames, tf.argsort(draws), batch_dims=frames.shape.rank - 1)


def _clip_frames(start: tf.Tensor, length: tf.Tensor, num_frames: int, stride: int) -> tf.Tensor:
    # The remainder repeats a short video from its start: a clip never holds invented frames, and
    # even a video of a single frame becomes a clip.
    return (start + tf.range(0, num_frames * stride, stride)) % length


def _draws(seed: tf.Tensor) -> list[tf.Tensor]:
    """Draws the start, scales, shifts and flip of a training clip."""
    # One draw for all: each random operation costs as much as moving a small image.
    return tf.unstack(tf.random.stateless_uniform((6,), seed, alg="philox"))


def _content_seed(example: Example) -> tf.Tensor:
    """Returns a stateless seed, int64 (2,), that depends only on the frames of a video."""
    if "frames" in example:
        words = tf.strings.to_hash_bucket_fast(example["frames"], _LARGEST_INT64)
    else:
        words = tf.bitcast(tf.fingerprint(example["video"]), tf.int64)  # one word per frame
    return tf.stack([tf.reduce_sum(words), tf.constant(_ORDER_STREAM, tf.int64)])


def _windows(
    example: Example,
    indices: tf.Tensor,
    size: tf.Tensor,
    begins: Sequence[tf.Tensor],
    config: VideoPreprocessingConfig,
) -> list[tf.Tensor]:
    """Resizes frames to `size`, and cuts out the windows that begin at `begins`.

    Returns uint8 (*indices.shape, height, width, channels) for each window. Each frame is decoded
    and resized once, even if it is repeated or shared.
    """
    height, width = config.image_size

    def cut(frames: tf.Tensor) -> tf.Tensor:
        resized = resize(to_channels(frames, config.channels), size, config.interpolation)
        windows = [
            to_bytes(resized[..., y : y + height, x : x + width, :])
            for y, x in map(tf.unstack, begins)
        ]
        return tf.stack(windows, axis=-4)

    distinct, places = tf.unique(tf.reshape(indices, [-1]))
    smallest = size if config.scaled_decoding else None
    windows = decode_frames(example, distinct, cut, smallest)
    places = tf.reshape(places, indices.shape)
    return [tf.gather(windows[:, number], places) for number in range(len(begins))]


def _resized_size(
    frame_size: tf.Tensor,
    config: VideoPreprocessingConfig,
    scale_draws: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> tf.Tensor:
    """Returns int32 (2,), the height and width that frames are resized to."""
    size = tf.cast(frame_size, tf.float64)
    size = size * config.min_resize / tf.reduce_min(size)
    if scale_draws is not None and config.scale_jitter is not None:
        smallest, largest = config.scale_jitter
        draws = tf.cast(tf.stack(scale_draws), tf.float64)
        size *= smallest + (largest - smallest) * draws
    missing = tf.reduce_max(tf.constant(config.image_size, tf.float64) / size)
    size *= tf.maximum(missing, 1.0)
    # Rounded down, with a margin for results just below the exact whole number.
    return tf.maximum(tf.cast(size + 1e-6, tf.int32), config.image_size)


def _window_begins(size: tf.Tensor, config: VideoPreprocessingConfig) -> list[tf.Tensor]:
    """Returns the first row and column of each window of a test, int32 (2,) each."""
    free = size - config.image_size
    centre = (free + 1) // 2
    if config.spatial_views == 1:
        return [centre]
    moves = tf.where(free[1] >= free[0], [False, True], [True, False])
    return [tf.where(moves, 0, centre), centre, tf.where(moves, free, centre)]


def _augmented(clip: tf.Tensor, seed: tf.Tensor, config: VideoPreprocessingConfig) -> tf.Tensor:
    clip = randaugment(
        clip,
        _stream(seed, _RANDAUGMENT_STREAM),
        config.randaugment_layers,
        config.randaugment_magnitude,
    )
    if config.color_jitter > 0:
        clip = color_jitter(clip, _stream(seed, _COLOR_JITTER_STREAM), config.color_jitter)
    if config.color_drop > 0:
        clip = color_drop(clip, _stream(seed, _COLOR_DROP_STREAM), config.color_drop)
    if config.random_erasing > 0:
        clip = random_erasing(clip, _stream(seed, _ERASING_STREAM), config.random_erasing)
    return clip


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number)

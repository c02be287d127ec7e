from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.fake_source import photograph
from tests.helpers.fake_videos import EncodedVideoSource
from tests.helpers.fake_videos import encoded
from tests.helpers.fake_videos import numbered_video
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.decode_errors import explain_data_failures
from trainers.data.decode_errors import first_damaged
from trainers.data.preprocessing.decoding import decode_frames
from trainers.data.preprocessing.decoding import video_length
from trainers.data.preprocessing.videos import train_clip
from trainers.utils.errors import DataError

# Every clip shows every frame.
CONFIG = VideoPreprocessingConfig((16, 16), 5, stride=1, min_resize=16)


def _jpegs(num_frames: int = 5, height: int = 24, width: int = 32) -> list[bytes]:
    video = numbered_video(num_frames, height, width)
    return [tf.io.encode_jpeg(frame, quality=95).numpy() for frame in video]


def _clips(source: EncodedVideoSource) -> tf.data.Dataset:
    def clip(index: tf.Tensor) -> tf.Tensor:
        return train_clip(source.load(index), tf.stack([index, 0]), CONFIG)

    return tf.data.Dataset.range(source.num_examples).map(clip)


@pytest.mark.parametrize("form", ["video", "frames"])
def test_wanted_frames_in_the_wanted_order(form: str) -> None:
    video = numbered_video(6)
    example = {"video": tf.constant(video)} if form == "video" else encoded(video)
    decode = tf.function(lambda indices: decode_frames(example, indices))
    np.testing.assert_array_equal(decode(tf.constant([4, 0, 4])), video[[4, 0, 4]])
    assert video_length(example) == 6


def test_only_wanted_frames_are_decoded() -> None:
    example = encoded(numbered_video(3))
    frames = tf.concat([example["frames"], [b"damaged"]], axis=0)
    decoded = decode_frames({"frames": frames}, tf.constant([0, 2]))
    assert decoded.shape == (2, 24, 32, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        decode_frames({"frames": frames}, tf.constant([0, 3]))


def test_jpeg_and_png_in_one_video() -> None:
    png, jpeg = tf.io.encode_png(photograph()), tf.io.encode_jpeg(photograph())
    decoded = decode_frames({"frames": tf.stack([png, jpeg])}, tf.constant([0, 1]))
    np.testing.assert_array_equal(decoded, [photograph(), tf.io.decode_jpeg(jpeg)])


def _other_size(frames: list[bytes]) -> None:
    frames[2] = _jpegs(1, 32, 24)[0]


def _truncate(frames: list[bytes]) -> None:
    frames[3] = frames[3][: len(frames[3]) // 2]


def _write_text(frames: list[bytes]) -> None:
    frames[0] = b"not an image"


@pytest.mark.parametrize(
    ("damage", "beginning", "reason"),
    [
        (
            _other_size,
            "frame 2, counted from 0, of video",
            "expected the height and width of frame 0, 24x32, received 32x24; remove",
        ),
        (_truncate, "cannot decode frame 3, counted from 0, of video", "Invalid JPEG data"),
        (_write_text, "cannot decode frame 0, counted from 0, of video", "Unknown image file"),
        (list.clear, "video", "holds no frames: expected at least one; remove"),
    ],
)
def test_file_record_and_frame_are_named(
    damage: Callable[[list[bytes]], Any], beginning: str, reason: str
) -> None:
    videos = [_jpegs() for _ in range(3)]
    damage(videos[1])
    source = EncodedVideoSource(videos, ("first.tfrecord", "second.tfrecord", "third.tfrecord"))
    with pytest.raises(DataError) as failure, explain_data_failures(source, lambda: range(3)):
        list(_clips(source))
    message = str(failure.value)
    assert message.startswith(f"{beginning} second.tfrecord (record 1 of records/train)")
    assert reason in message
    assert "\n" not in message and "{{" not in message


def test_sound_videos_are_not_blamed() -> None:
    source = EncodedVideoSource([_jpegs(), _jpegs(1)], ("first.tfrecord", "second.tfrecord"))
    assert len(list(_clips(source))) == 2
    assert first_damaged(source, range(2)) is None


def test_an_empty_array_is_refused() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="the video holds no frames"):
        video_length({"video": tf.zeros((0, 8, 8, 3), tf.uint8)})

"""The record of one video: always the same bytes, or one line that says why there is none."""

import numpy as np
import pytest
import tensorflow as tf

from trainers.data.conversion import writer
from trainers.data.conversion.video_list import VideoRow
from trainers.data.conversion.writer import ConversionOptions
from trainers.data.conversion.writer import make_record
from trainers.utils.errors import DataError


def test_a_record_has_the_same_bytes_each_time() -> None:
    row = VideoRow(2, "a.mp4", "a.mp4", None, None, ("run", "jump"))
    frames = [np.full((8, 8, 3), number, np.uint8) for number in range(3)]
    options = ConversionOptions(1)
    numbers = {"jump": 0, "run": 1}
    records = {make_record(row, frames, numbers, options) for _ in range(20)}
    assert len(records) == 1
    context = tf.train.SequenceExample.FromString(records.pop()).context.feature
    assert context["clip/label/index"].int64_list.value[:] == [0, 1]
    assert context["clip/label/text"].bytes_list.value[:] == [b"jump", b"run"]


def test_frames_that_make_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    row = VideoRow(2, "a.mp4", "a.mp4", None, None, ("run",))
    frames = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 6, 3), np.uint8)]
    with pytest.raises(DataError, match="frame 1 has 8 x 6 pixels, those before it 8 x 8"):
        make_record(row, frames, {"run": 0}, ConversionOptions(1))
    monkeypatch.setattr(writer, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="at most 1000 bytes, .* 1 frames; set start and end"):
        make_record(row, frames[:1] * 2, {"run": 0}, ConversionOptions(1))

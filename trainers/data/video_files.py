"""Decodes frames of video files with PyAV."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.errors import one_line

FRAMES_PER_SECOND = 25.0
MIN_SIDE = 256
VIDEO_EXTENSIONS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
# A seek lands on a frame that can be decoded alone. It aims a little earlier, because a
# container may give times in the order of decoding, not of showing.
_SEEK_AHEAD_SECONDS = 1


def import_av() -> Any:
    """Returns the module `av`; raises ConfigurationError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ConfigurationError(
            f"Reading video files needs the package av, which could not be imported ({error}). "
            "Install it with: pip install '.[video]' in a clone"
        ) from error
    return av


def read_frames(
    path: str,
    start: float | None = None,
    end: float | None = None,
    *,
    frames_per_second: float = FRAMES_PER_SECOND,
    min_side: int = MIN_SIDE,
) -> Iterator[NDArray[np.uint8]]:
    """Decodes a part of a video file, frame by frame, at a given frame rate.

    The frames are those of ffmpeg's `fps` filter: the time of each, from `start`, is rounded
    to the nearest multiple of 1 / frames_per_second and the frame stays until the next one;
    where several fall on one multiple, the last is taken. A faster video loses frames, a
    slower one repeats some, and a part shorter than a step still gives one.

    Frames look as in a player: a rotated video (from a phone) is turned upright, and frames whose
    pixels are not square are resized in width until they are.

    Args:
        start: seconds from the first frame; None is 0.
        end: seconds from the first frame, not included; None, or a time after the end, is the end
            of the file.
        min_side: pixels of the shorter side; frames are only made smaller, never larger.

    Yields:
        (height, width, 3) uint8.

    Raises:
        ConfigurationError: PyAV is missing.
        DataError: the file cannot be read, is truncated (found when the part reaches the end
            of what is there), or holds no video or no frame of that part.
    """
    av = import_av()
    first = _exact(start or 0.0)
    last = None if end is None else _exact(end)
    rate = _exact(frames_per_second)
    count = 0
    only = None  # the frame of a part that is shorter than half a step
    try:
        # With "file:", because FFmpeg takes whatever precedes a colon in a name for a protocol.
        with av.open(f"file:{path}") as container:
            stream = _video_stream(container, path)
            aspect_ratio = stream.sample_aspect_ratio or 1
            for shown_until, frame in _timed_frames(container, stream, path, first):
                if shown_until <= first:
                    continue
                until = shown_until if last is None else min(shown_until, last)
                steps = math.floor((until - first) * rate + Fraction(1, 2))
                if count < steps:
                    pixels = _pixels(frame, min_side, aspect_ratio)
                    yield from repeat(pixels, steps - count)
                    count = steps
                only = only or frame
                if last is not None and shown_until >= last:
                    break
            if only and not count:
                count = 1
                yield _pixels(only, min_side, aspect_ratio)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = f"{_reason(error)}; it is damaged, truncated or not a video"
        raise DataError(f"{path}: {reason}") from error
    if not count:
        wanted = f"from {float(first):g} s to {'the end' if end is None else f'{end:g} s'}"
        raise DataError(f"{path} has no frame {wanted}")


def resized_size(height: int, width: int, min_side: int) -> tuple[int, int]:
    """Returns height and width with the shorter side reduced to `min_side` pixels.

    A smaller image keeps its size; the longer side is rounded to the nearest pixel.
    """
    shorter = min(height, width)
    if shorter <= min_side:
        return height, width
    return round(height * min_side / shorter), round(width * min_side / shorter)


def upright(pixels: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """Turns an image counterclockwise by `degrees`, rounded to a multiple of 90."""
    return np.ascontiguousarray(np.rot90(pixels, round(degrees / 90) % 4))


def _video_stream(container: Any, path: str) -> Any:
    if not container.streams.video:
        raise DataError(f"{path} holds no video, or is truncated")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _timed_frames(
    container: Any, stream: Any, path: str, start: Fraction
) -> Iterator[tuple[Fraction, Any]]:
    """Yields frames in display order, each with the second at which it ends."""
    step = 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))
    packets = _Packets(container, stream, path)
    if packets.is_avi and stream.codec_context.has_b_frames:
        frames = _frames_by_place(packets)
    else:
        frames = _frames_by_time(packets, start)
    previous, begin = None, Fraction(0)
    longest = Fraction(0)
    for ticks, frame in frames:
        if ticks is None:
            raise DataError(f"{path} has a frame without a time")
        time = ticks * stream.time_base
        if previous is not None:
            # Frames come in display order, whatever times the container gives them.
            time = time if time > begin else begin + step
            longest = max(longest, time - begin)
            yield time, previous
        previous, begin = frame, time
    if previous is not None:
        duration = (previous.duration or 0) * stream.time_base
        longest = max(longest, duration)
        yield begin + (duration or step), previous
    # The last frame may be shown for longer than the file says, but hardly longer than others.
    if longest or previous is None:
        packets.check_end(tolerance=longest * 3 / 2)


class _Packets:
    """The packets of a video stream, checked against the duration that the file declares."""

    def __init__(self, container: Any, stream: Any, path: str) -> None:
        self.container = container
        self.stream = stream
        self.path = path
        formats = container.format.name.split(",")
        self.is_avi = "avi" in formats
        self._read_until = Fraction(0)  # seconds
        self._streams = {stream.index}
        self._declared: Fraction | None = None  # seconds
        if self.is_avi:
            # FFmpeg reduces the duration of a truncated AVI file to what is left of it.
            self._declared = stream.frames * stream.time_base
        elif "matroska" in formats:
            # Matroska has one duration for all streams, and the sound may be the longest. Without
            # one, FFmpeg guesses it from the bit rate.
            if container.duration and _matroska_has_duration(path):
                self._declared = Fraction(container.duration, 1_000_000)
                self._streams = {each.index for each in container.streams}
        elif stream.duration:
            self._declared = ((stream.start_time or 0) + stream.duration) * stream.time_base

    def __iter__(self) -> Iterator[Any]:
        for packet in self.container.demux():
            if packet.is_corrupt:
                raise DataError(f"{self.path} is truncated: it ends within a frame")
            ticks = packet.dts if self.is_avi or packet.pts is None else packet.pts
            if ticks is not None and packet.stream.index in self._streams:
                end = (ticks + (packet.duration or 0)) * packet.time_base
                self._read_until = max(self._read_until, end)
            if packet.stream.index == self.stream.index:
                yield packet

    def check_end(self, tolerance: Fraction) -> None:
        """Raises an error if, once all is read, the file declares to be longer than that."""
        if self._declared and self._declared - self._read_until >= tolerance:
            raise DataError(
                f"{self.path} is truncated: expected {float(self._declared):.2f} s as it declares, "
                f"received {float(self._read_until):.2f} s"
            )


def _matroska_has_duration(path: str) -> bool:
    """Whether the header of a Matroska file has the element Duration, a float of 4 or 8 bytes."""
    with open(path, "rb") as file:
        header = file.read(8192)
    return b"\x44\x89\x84" in header or b"\x44\x89\x88" in header


def _frames_by_time(packets: _Packets, start: Fraction) -> Iterator[tuple[int | None, Any]]:
    """Yields frames from a little before `start`, with the times that the file gives."""
    stream = packets.stream
    zero = stream.start_time or 0
    if start > _SEEK_AHEAD_SECONDS:
        offset = int((start - _SEEK_AHEAD_SECONDS) / stream.time_base) + zero
        # A truncated Matroska file lacks its index; then it is read from the beginning.
        with suppress(PermissionError):
            packets.container.seek(offset, stream=stream, backward=True)
    for packet in packets:
        for frame in packet.decode():
            yield None if frame.pts is None else frame.pts - zero, frame


def _frames_by_place(packets: _Packets) -> Iterator[tuple[int | None, Any]]:
    """Yields all frames of a container that counts them in decoding order.

    The n-th frame shown takes the time of the n-th frame stored. So the file must be read from
    its beginning: after a seek, the number of frames before is unknown.
    """
    times: deque[int] = deque()
    for packet in packets:
        if packet.size:
            times.append(packet.dts)
        elif packet.dts is not None:
            continue  # stands for a dropped frame; only the last empty packet ends the decoding
        for frame in packet.decode():
            yield times.popleft() if times else None, frame


def _pixels(frame: Any, min_side: int, aspect_ratio: Fraction | int) -> NDArray[np.uint8]:
    """Returns a frame as it is shown; `aspect_ratio` is width / height of a pixel."""
    shown_width = max(1, round(frame.width * aspect_ratio))
    height, width = resized_size(frame.height, shown_width, min_side)
    pixels: NDArray[np.uint8] = frame.to_ndarray(
        format="rgb24", width=width, height=height, interpolation="BILINEAR"
    )
    return upright(pixels, getattr(frame, "rotation", 0))


def _exact(number: float) -> Fraction:
    """Returns what the digits say: the float 0.2 is a little more than a fifth."""
    return Fraction(str(number))


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error).rstrip(".")

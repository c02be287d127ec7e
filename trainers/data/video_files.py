"""Frames out of video files, by PyAV."""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.errors import ConfigurationError
from trainers.errors import DataError

FRAMES_PER_SECOND = 25.0
MIN_SIDE = 256
EXTENSIONS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
# A seek lands on a frame that can be decoded alone; it is asked for a little earlier,
# because a container may count in the order of decoding, not of showing.
_SEEK_AHEAD_SECONDS = 1


def import_av() -> Any:
    """Returns the module `av`.

    Raises:
        ConfigurationError: it is not installed.
    """
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
    """Decodes a part of a video file, frame by frame, at a frame rate of one's own.

    At each moment the frame is taken that a player shows then: a faster video loses
    frames, a slower one repeats some. A turned video (of a phone) is turned upright.

    Args:
        path: the file.
        start: seconds from the first frame; None is 0.
        end: seconds from the first frame, not included; None, or more than there is, is
            the end of the file.
        frames_per_second: frames to take from each second.
        min_side: pixels of the shorter side; a frame is made smaller, never larger.

    Yields:
        (height, width, 3) uint8.

    Raises:
        ConfigurationError: PyAV is missing.
        DataError: the file cannot be read, holds no video, or no frame of that part.
    """
    av = import_av()
    first = _exact(start or 0.0)
    last = None if end is None else _exact(end)
    rate = _exact(frames_per_second)
    count = 0
    try:
        with av.open(path) as container:
            for shown_until, frame in _timed_frames(container, path, first):
                until = shown_until if last is None else min(shown_until, last)
                pixels = None
                while first + count / rate < until:
                    pixels = _pixels(frame, min_side) if pixels is None else pixels
                    yield pixels
                    count += 1
                if last is not None and shown_until >= last:
                    break
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    if not count:
        wanted = f"from {float(first):g} s to {'the end' if end is None else f'{end:g} s'}"
        raise DataError(f"{path} has no frame {wanted}")


def resized_size(height: int, width: int, min_side: int) -> tuple[int, int]:
    """Returns height and width after the shorter side was cut to `min_side` pixels.

    A smaller image keeps its size; the longer side is rounded to the nearest pixel.
    """
    shorter = min(height, width)
    if shorter <= min_side:
        return height, width
    return round(height * min_side / shorter), round(width * min_side / shorter)


def upright(pixels: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """Turns an image counterclockwise by the multiple of 90 degrees that is nearest.

    Args:
        pixels: (height, width, 3).
        degrees: as the file says how it is to be shown.

    Returns:
        The turned image, of which height and width may be swapped.
    """
    return np.ascontiguousarray(np.rot90(pixels, round(degrees / 90) % 4))


def _timed_frames(container: Any, path: str, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Yields frames in the order of showing, each with the second at which it ends."""
    if not container.streams.video:
        raise DataError(f"{path} holds no video")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    if "avi" in container.format.name.split(",") and stream.codec_context.has_b_frames:
        frames = _frames_by_place(container, stream)
    else:
        frames = _frames_by_time(container, stream, start)
    previous, begin = None, Fraction(0)
    for ticks, frame in frames:
        if ticks is None:
            raise DataError(f"{path} has a frame without a time")
        time = ticks * stream.time_base
        if previous is not None:
            # Frames come in the order of showing, whatever the container says of them.
            time = time if time > begin else begin + 1 / rate
            yield time, previous
        previous, begin = frame, time
    if previous is not None:
        duration = previous.duration * stream.time_base if previous.duration else 1 / rate
        yield begin + duration, previous


def _frames_by_time(
    container: Any, stream: Any, start: Fraction
) -> Iterator[tuple[int | None, Any]]:
    """Yields frames from a little before `start`, with the time that the file gives each."""
    zero = stream.start_time or 0
    if start > _SEEK_AHEAD_SECONDS:
        offset = int((start - _SEEK_AHEAD_SECONDS) / stream.time_base) + zero
        container.seek(offset, stream=stream, backward=True)
    for frame in container.decode(stream):
        yield None if frame.pts is None else frame.pts - zero, frame


def _frames_by_place(container: Any, stream: Any) -> Iterator[tuple[int | None, Any]]:
    """Yields all frames of a container that counts them in the order of decoding.

    The n-th frame that is shown takes the time of the n-th that is stored. So it must be
    read from its beginning: behind a jump nobody knows how many are shown before.
    """
    times: deque[int] = deque()
    for packet in container.demux(stream):
        if packet.size:
            times.append(packet.dts)
        elif packet.dts is not None:
            continue  # in place of a frame that was left out; only the last one ends the decoding
        for frame in packet.decode():
            yield times.popleft() if times else None, frame


def _pixels(frame: Any, min_side: int) -> NDArray[np.uint8]:
    height, width = resized_size(frame.height, frame.width, min_side)
    pixels: NDArray[np.uint8] = frame.to_ndarray(
        format="rgb24", width=width, height=height, interpolation="BILINEAR"
    )
    return upright(pixels, getattr(frame, "rotation", 0))


def _exact(number: float) -> Fraction:
    """Returns what the digits say: 0.2 as a binary number is a little more than a fifth."""
    return Fraction(str(number))


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__

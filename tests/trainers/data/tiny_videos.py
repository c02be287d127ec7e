"""Tiny video files for the tests, written by PyAV: each frame spells its number."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path,
    num_frames: int,
    *,
    rate: Fraction | int = 25,
    size: tuple[int, int] = (32, 48),
    level: int = 0,
    codec: str = "mpeg4",
    b_frames: int = 0,
) -> Path:
    """Writes a video whose frame n has the grey value `level + 8 * n`, up to 255.

    Args:
        path: where; the ending chooses the container.
        num_frames: how many.
        rate: frames a second.
        size: height and width, even numbers.
        level: grey value of the first frame.
        codec: "mpeg4" or "libx264".
        b_frames: frames in a row that are stored behind a later one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"bf": str(b_frames)})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(num_frames):
            pixels = np.full((*size, 3), min(255, level + 8 * number), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frame_numbers(frames: list[np.ndarray], level: int = 0) -> list[int]:
    """Returns which frame each is."""
    return [round((float(frame.mean()) - level) / 8) for frame in frames]

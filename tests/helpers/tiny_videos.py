"""Tiny video files for the tests, written by PyAV: each frame spells its number."""

from collections.abc import Sequence
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


_BITS = 10
_BIT_WIDTH = 8  # pixels


def write_striped_video(
    path: Path,
    num_frames: int,
    codec: str,
    *,
    rate: Fraction | int = 25,
    times_ms: Sequence[int] = (),
    pixel_aspect_ratio: Fraction | int = 1,
    sound_seconds: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a video whose frame n shows the bits of n as black and white stripes.

    Args:
        path: where; the ending chooses the container.
        num_frames: how many, up to 1023.
        codec: "libvpx-vp9", "libx264" (two frames in a row are stored behind a later one) or
            "mpeg4".
        rate: frames a second.
        times_ms: of the frames, where they are not at a constant rate from 0.
        pixel_aspect_ratio: width / height of a pixel.
        sound_seconds: length of a sound track; 0 is none.
        options: of the container.
    """
    quick = {"libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}, "libx264": {"bf": "2"}}
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=quick.get(codec, {}))
        stream.width, stream.height = _BITS * _BIT_WIDTH, 32
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 400_000
        stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect_ratio)
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("pcm_s16le", rate=8000) if sound_seconds else None
        for number in range(num_frames):
            bits = np.array([number >> place & 1 for place in range(_BITS)], np.uint8)
            pixels = np.broadcast_to(255 * bits.repeat(_BIT_WIDTH)[:, np.newaxis], (32, 80, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            samples = np.zeros((1, 8000 * sound_seconds), np.int16)
            heard = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            heard.sample_rate = 8000
            container.mux([*sound.encode(heard), *sound.encode()])
    return path


def striped_number(frame: np.ndarray) -> int:
    """Returns which frame of a video by `write_striped_video` this is."""
    stripes = frame.shape[1] * (2 * np.arange(_BITS) + 1) // (2 * _BITS)
    bits = frame[frame.shape[0] // 2, stripes, 0] > 127
    return int(bits @ (1 << np.arange(_BITS)))

"""Slopes of cost over size."""

import pytest

from benchmarks.tables import speed


def test_slopes_are_the_exponents(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {
            "backend": "jax",
            "direction": "inference",
            "arm": "plain",
            "model": "a",
            "frames": str(frames),
            "size": str(size),
            "wall_seconds": str(3e-6 * frames**1.5 * size**2.5),
            "macs": str(7 * frames * size**2),
        }
        for frames, size in ((8, 112), (16, 112), (32, 112), (16, 160), (16, 224))
    ]
    monkeypatch.setattr(speed, "read_csv", lambda name: rows)
    *_, frames, pixels = speed.video_growth().splitlines()
    assert frames.endswith("| 1.50 | 1.00 |")
    assert pixels.endswith("| 1.25 | 1.00 |")

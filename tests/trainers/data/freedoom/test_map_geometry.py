"""Rooms and walls of a map: one written here, and those of Freedoom."""

import struct
from pathlib import Path

import pytest

from trainers.data.freedoom.engine import wad_path
from trainers.data.freedoom.map_geometry import MapGeometry

# Two rooms side by side, 100 wide and 100 deep, the second with a low ceiling.
VERTEXES = [(0, 0), (0, 100), (100, 100), (100, 0), (200, 100), (200, 0)]
SECTORS = [(0, 128), (8, 48)]
#: Start, end, sector to the right, sector to the left or None; to the right is inside.
LINES = [
    (0, 1, 0, None),
    (1, 2, 0, None),
    (3, 0, 0, None),
    (2, 3, 0, 1),
    (2, 4, 1, None),
    (4, 5, 1, None),
    (5, 3, 1, None),
]


@pytest.fixture
def geometry(tmp_path: Path) -> MapGeometry:
    path = tmp_path / "two_rooms.wad"
    path.write_bytes(_wad())
    return MapGeometry(path, "MAP02")


def _wad() -> bytes:
    """Returns a WAD file whose second map is the two rooms."""
    sides: list[int] = []

    def side(sector: int | None) -> int:
        if sector is None:
            return 0xFFFF
        sides.append(sector)
        return len(sides) - 1

    lines = b"".join(
        struct.pack("<7H", start, end, 0, 0, 0, side(right), side(left))
        for start, end, right, left in LINES
    )
    lumps = {
        "LINEDEFS": lines,
        "SIDEDEFS": b"".join(struct.pack("<28xH", sector) for sector in sides),
        "VERTEXES": b"".join(struct.pack("<2h", *vertex) for vertex in VERTEXES),
        "SECTORS": b"".join(struct.pack("<2h22x", *heights) for heights in SECTORS),
    }
    content, directory = b"", []
    for name, lump in [("MAP01", b""), ("LINEDEFS", b""), ("MAP02", b""), *lumps.items()]:
        directory.append((12 + len(content), len(lump), name.encode()))
        content += lump
    header = struct.pack("<4sii", b"PWAD", len(directory), 12 + len(content))
    return header + content + b"".join(struct.pack("<ii8s", *entry) for entry in directory)


@pytest.mark.parametrize(
    ("place", "expected"),
    [((50, 50), 128), ((1, 99), 128), ((150, 50), 40), ((-50, 50), 0), ((250, 50), 0)],
)
def test_headroom(geometry: MapGeometry, place: tuple[int, int], expected: float) -> None:
    assert geometry.headroom(*place) == expected


def test_headroom_above_and_below_the_map(geometry: MapGeometry) -> None:
    assert geometry.headroom(50, 150) == geometry.headroom(50, -50) == 0


@pytest.mark.parametrize(
    ("place", "expected"), [((10, 50), 10), ((50, 80), 20), ((-30, 140), 50), ((100, 50), 50)]
)
def test_wall_distance(geometry: MapGeometry, place: tuple[int, int], expected: float) -> None:
    assert geometry.wall_distance(*place) == pytest.approx(expected)


def test_sight(geometry: MapGeometry) -> None:
    assert geometry.is_clear(50, 50, 150, 60)  # past the step between the rooms
    assert geometry.is_clear(10, 10, 90, 90)
    assert not geometry.is_clear(50, 50, -50, 50)
    assert not geometry.is_clear(-10, 50, 210, 50)
    assert geometry.is_clear(-10, 50, -20, 70)  # on the same side of every wall


def test_freedoom() -> None:
    pytest.importorskip("vizdoom")
    geometry = MapGeometry(wad_path(), "MAP01")
    assert geometry.headroom(10**5, 0) == 0.0
    heights = [geometry.headroom(x, y) for x in range(-2000, 2001, 100) for y in range(0, 2001, 50)]
    assert 56.0 < max(heights) < 2000.0
    assert 0.0 in heights

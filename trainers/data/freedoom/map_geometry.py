"""Reads the walls and rooms of a Freedoom map, to know where a camera may stand.

The records are those of Doom's map format: lines from vertex to vertex, with a side to the right
and mostly one to the left, each of which belongs to a sector, a floor with a ceiling above.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LINE = np.dtype([("ends", "<u2", 2), ("ignored", "V6"), ("sides", "<u2", 2)])
_SIDE = np.dtype([("ignored", "V28"), ("sector", "<u2")])
_VERTEX = np.dtype([("place", "<i2", 2)])
_SECTOR = np.dtype([("floor", "<i2"), ("ceiling", "<i2"), ("ignored", "V22")])
_DIRECTORY_ENTRY = struct.Struct("<ii8s")
_RECORDS = {"LINEDEFS": _LINE, "SIDEDEFS": _SIDE, "VERTEXES": _VERTEX, "SECTORS": _SECTOR}
_NO_SIDE = 0xFFFF
_LUMPS_OF_A_MAP = 11  # its name and what follows it in the directory
# Vertices lie at whole map units, so a ray between two of them meets none.
_OFF_THE_GRID = 0.37


class MapGeometry:
    """The rooms of one map, as they are before any door opens.

    Args:
        wad: The file with the maps.
        map_name: Such as "MAP01".
    """

    def __init__(self, wad: Path, map_name: str) -> None:
        records = _read_records(wad, map_name)
        places = records["VERTEXES"]["place"].astype(np.float64)
        lines = records["LINEDEFS"]
        sides = lines["sides"].astype(np.int64)
        sector = np.append(records["SIDEDEFS"]["sector"], 0)  # the last where there is no side
        heights = records["SECTORS"]["ceiling"] - records["SECTORS"]["floor"].astype(np.float64)
        has_side = sides != _NO_SIDE
        self._ends = places[lines["ends"]]  # (lines, 2, 2): start and end, x and y
        # The height of the room on the right and on the left of each line; 0 in solid rock.
        self._rooms = np.where(has_side, heights[sector[np.where(has_side, sides, -1)]], 0.0)
        self._walls = self._ends[~has_side.all(axis=1)]  # (walls, 2, 2)

    def headroom(self, x: float, y: float) -> float:
        """Returns the height from floor to ceiling at a place, in map units; 0.0 in a wall."""
        x, y = x + _OFF_THE_GRID, y + _OFF_THE_GRID
        (x1, y1), (x2, y2) = self._ends[:, 0].T, self._ends[:, 1].T
        met = np.flatnonzero((y1 > y) != (y2 > y))
        x1, y1, x2, y2 = x1[met], y1[met], x2[met], y2[met]
        distances = x1 + (y - y1) / (y2 - y1) * (x2 - x1) - x
        distances[distances < 0] = np.inf  # a ray to the east does not meet these
        if not np.isfinite(distances).any():
            return 0.0
        nearest = int(np.argmin(distances))
        goes_north = bool(y2[nearest] > y1[nearest])  # then what is west of it is to its left
        return float(self._rooms[met[nearest], int(goes_north)])

    def wall_distance(self, x: float, y: float) -> float:
        """Returns the distance from a place to the nearest solid wall, in map units."""
        start = self._walls[:, 0]
        along = self._walls[:, 1] - start
        reach = np.array([x, y]) - start
        lengths = np.maximum((along**2).sum(axis=1), 1e-9)
        share = np.clip((reach * along).sum(axis=1) / lengths, 0.0, 1.0)
        return float(np.sqrt(((reach - share[:, None] * along) ** 2).sum(axis=1).min()))

    def is_clear(self, x: float, y: float, to_x: float, to_y: float) -> bool:
        """Returns whether no solid wall stands between two places; steps and doors do not count."""
        start, end = np.array([x, y]), np.array([to_x, to_y])
        sides = _cross(end - start, self._walls - start)  # (walls, 2), of both ends of each
        crosses_line = (sides[:, 0] > 0) != (sides[:, 1] > 0)
        along = self._walls[:, 1] - self._walls[:, 0]
        before = _cross(along, start - self._walls[:, 0]) > 0
        after = _cross(along, end - self._walls[:, 0]) > 0
        return not bool((crosses_line & (before != after)).any())


def _cross(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the cross products of plane vectors, (..., 2) each."""
    product: NDArray[np.float64] = left[..., 0] * right[..., 1] - left[..., 1] * right[..., 0]
    return product


def _read_records(wad: Path, map_name: str) -> dict[str, NDArray[np.void]]:
    """Reads the tables of one map by their names."""
    content = wad.read_bytes()
    _, count, start = struct.unpack_from("<4sii", content)
    directory = content[start : start + count * _DIRECTORY_ENTRY.size]
    entries = [
        (offset, size, name.rstrip(b"\0").decode("ascii"))
        for offset, size, name in _DIRECTORY_ENTRY.iter_unpack(directory)
    ]
    names = [name for _, _, name in entries]
    first = names.index(map_name)
    return {
        name: np.frombuffer(content, _RECORDS[name], size // _RECORDS[name].itemsize, offset)
        for offset, size, name in entries[first : first + _LUMPS_OF_A_MAP]
        if name in _RECORDS
    }

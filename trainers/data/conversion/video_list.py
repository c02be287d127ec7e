"""Reads a CSV file of labelled segments of video files.

    path,start,end,label
    videos/a.mp4,0,9.5,archery
    videos/b.mp4,,,running;throwing

Times are in seconds; empty ones mean the whole file, as do missing columns. A path that
is not absolute starts at the folder of the CSV file; "~" is the home directory. A semicolon
separates labels. The videos must lie on a local disk. The list format of DMVR,
`video_path,start,end,label,caption`, is taken as well; the captions are ignored.
"""

import csv
import dataclasses
import io
import math
import os
import re
from dataclasses import dataclass

from trainers.utils import files
from trainers.utils.errors import ConfigurationError

_COLUMNS = {
    "path": ("path", "video_path"),
    "start": ("start",),
    "end": ("end",),
    "labels": ("label", "labels"),
    "caption": ("caption",),  # in DMVR's lists; ignored
}
_HEADER = "Expected a first line path,start,end,label; start and end may be left out."
_SEPARATOR = re.compile("[;\t]")
_OTHER_SEPARATOR = " Separate the cells by commas; a semicolon stands between labels only."


@dataclass(frozen=True)
class VideoRow:
    """One part of a video file."""

    number: int  # of the line in the CSV file, whose header is line 1
    name: str  # the path as it is written there
    path: str  # absolute
    start: float | None  # seconds
    end: float | None
    labels: tuple[str, ...]  # each once
    problem: str = ""  # what is wrong with the row


def read_video_list(path: str) -> list[VideoRow]:
    """Reads a CSV file; rows with mistakes are returned with their `problem`.

    Raises ConfigurationError if the file cannot be read, or a video lies on a remote file system.
    """
    try:
        text = files.read(path).decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(
            f"--csv={path} cannot be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"--csv={path} is not a text file in UTF-8: {error}. Save it as one."
        ) from error
    reader = csv.reader(io.StringIO(text, newline=None))  # "\r" also ends a line
    try:
        columns = _columns(path, next(reader, []))
        folder = os.path.dirname(path)
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise ConfigurationError(
            f"--csv={path}, line {reader.line_num}, cannot be read: {error}. Expected cells with "
            "commas between, and a quotation mark at both ends of a cell or at none."
        ) from error
    if not lines:
        raise ConfigurationError(f"--csv={path} names no video. {_HEADER}")
    rows = [_row(number, cells, columns, folder) for number, cells in lines]
    remote = next((row for row in rows if files.is_remote(row.path)), None)
    if remote:
        raise ConfigurationError(
            f"--csv={path}, row {remote.number}: expected a video on a local disk, received "
            f"{remote.path}. Copy the videos to a local disk; --output may be remote."
        )
    return rows


def mark_missing_files(rows: list[VideoRow], needed: set[int]) -> list[VideoRow]:
    """Returns the rows; one whose number is in `needed` has a `problem` if its file is missing."""
    paths = {row.path for row in rows if row.number in needed and not row.problem}
    missing = {path for path in paths if not os.path.isfile(path)}
    return [
        dataclasses.replace(row, problem=f"{row.path}: no such file")
        if row.path in missing and row.number in needed and not row.problem
        else row
        for row in rows
    ]


def _columns(path: str, header: list[str]) -> dict[str, int]:
    """Returns the position of each column."""
    names = [name.strip().lower() for name in header]
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        meaning = next((key for key, known in _COLUMNS.items() if name in known), None)
        if meaning is None or meaning in places:
            problem = "is there twice" if meaning else "is unknown"
            hint = f"{_HEADER}{_OTHER_SEPARATOR if _SEPARATOR.search(name) else ''}"
            raise ConfigurationError(f"--csv={path}: the column {name!r} {problem}. {hint}")
        places[meaning] = place
    missing = [name for name in ("path", "labels") if name not in places]
    if missing:
        raise ConfigurationError(f"--csv={path} lacks the column {missing[0]!r}. {_HEADER}")
    return places


def _row(number: int, cells: list[str], columns: dict[str, int], folder: str) -> VideoRow:
    cell = {name: cells[place].strip() for name, place in columns.items() if place < len(cells)}
    problems = []
    if len(cells) != len(columns):
        problems.append(f"{len(cells)} cells, expected {len(columns)}")
    start = _seconds("start", cell.get("start", ""), problems)
    end = _seconds("end", cell.get("end", ""), problems)
    if end is not None and end <= (start or 0.0):
        problems.append(f"the end, {end:g} s, is not after the start, {start or 0.0:g} s")
    name = cell.get("path", "")
    if not name:
        problems.append("the path is empty")
    labels = [label.strip() for label in cell.get("labels", "").split(";")]
    return VideoRow(
        number=number,
        name=name,
        path=_full_path(folder, name),
        start=start,
        end=end,
        labels=tuple(dict.fromkeys(label for label in labels if label)),
        problem=problems[0] if problems else "",
    )


def _full_path(folder: str, name: str) -> str:
    """Returns the absolute path; ".." stays, because a link may precede it."""
    path = name if files.is_remote(name) else os.path.join(folder, os.path.expanduser(name))
    return path if files.is_remote(path) else os.path.join(os.getcwd(), path)


def _seconds(name: str, text: str, problems: list[str]) -> float | None:
    """Returns the number, or adds to `problems` what is wrong with it."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        problems.append(f"the {name} {text!r} is not a number of seconds, 0 or more, such as 61.5")
        return None
    return value

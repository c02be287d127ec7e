"""Lists of videos: what is read of them, and lists that are refused in one line."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from trainers.data.conversion.video_list import mark_missing_files
from trainers.data.conversion.video_list import read_video_list
from trainers.utils.errors import ConfigurationError


def test_paths_and_columns_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\ufeffvideo_path, Labels\nx/a.mp4,run\n\n/b.mp4, run ; jump\n", "utf-8")
    first, second = read_video_list(str(path))
    assert (first.number, first.name, first.path) == (2, "x/a.mp4", str(tmp_path / "x/a.mp4"))
    assert (first.start, first.end, first.labels, first.problem) == (None, None, ("run",), "")
    assert (second.number, second.path, second.labels) == (4, "/b.mp4", ("run", "jump"))


def test_the_lists_of_dmvr(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "video_path,start,end,label,caption\n"
        'a.mp4,0,9.5,archery,"an archer, in the wood"\n'
        "b.mp4,1,2,running,\n"
        "c.mp4,1,2,running\n"
    )
    first, second, third = read_video_list(str(path))
    assert (first.name, first.start, first.end) == ("a.mp4", 0.0, 9.5)
    assert (first.labels, first.problem) == (("archery",), "")
    assert (second.labels, second.problem) == (("running",), "")
    assert third.problem == "4 cells, expected 5"


def test_lines_that_end_in_a_carriage_return(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b"path,label\rx/a.mp4,run\rb.mp4,jump\r")
    rows = read_video_list(str(path))
    assert [(row.number, row.name, row.labels) for row in rows] == [
        (2, "x/a.mp4", ("run",)),
        (3, "b.mp4", ("jump",)),
    ]


def test_paths_are_shown_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("path,label\n~/a.mp4,run\nx/b.mp4,run\n")
    rows = read_video_list("list.csv")
    assert [row.path for row in rows] == [str(tmp_path / "home/a.mp4"), str(tmp_path / "x/b.mp4")]
    assert rows[0].name == "~/a.mp4"
    _, second = mark_missing_files(rows, needed={3})
    assert second.problem == f"{tmp_path / 'x/b.mp4'}: no such file"


def test_times_in_minutes(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,end,label\na.mp4,00:00:01,run\n")
    (row,) = read_video_list(str(tmp_path / "list.csv"))
    assert row.problem == "the end '00:00:01' is not a number of seconds, 0 or more, such as 61.5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('path,label\n"' + "a" * 200_000 + '",run\n', "line 2, cannot be read: field larger"),
        ("path,label\na.mp4,run\ngs://b/c.mp4,run\n", "row 3: .*gs://b/c.mp4. Copy the videos"),
        ("path;label\na.mp4;run\n", "is unknown.*Separate the cells by commas"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        read_video_list(str(path))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("path", "begin", "end", "label"), "the column 'begin' is unknown"),
        (("path", "start", "end"), "lacks the column 'labels'"),
        (("path", "path", "end", "label"), "the column 'path' is there twice"),
    ],
)
def test_wrong_columns(tmp_path: Path, header: Iterable[str], message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(",".join(header) + "\na.mp4,0,1,run\n")
    with pytest.raises(ConfigurationError, match=message):
        read_video_list(str(path))

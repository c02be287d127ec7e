"""The converter: what it writes, what it refuses, and that a kill changes nothing."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import tensorflow as tf

from trainers.data.sources import make_source

pytest.importorskip("av")

from tests.trainers.data.tiny_videos import frame_numbers  # noqa: E402
from tests.trainers.data.tiny_videos import write_video  # noqa: E402

Row = tuple[str, str, str, str]
HEADER = ("path", "start", "end", "label")
ROWS: list[Row] = [
    ("a.mp4", "0", "0.4", "run"),
    ("a.mp4", "0.5", "", "jump"),
    ("b.mp4", "", "", "throw"),
    ("a.mp4", "0", "0.1", "run"),
    ("b.mp4", "0.1", "0.3", "jump"),
]


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))
    write_video(tmp_path / "a.mp4", 10, rate=10)
    write_video(tmp_path / "b.mp4", 4, rate=10, size=(48, 32))
    return tmp_path


def write_csv(path: Path, rows: Iterable[Iterable[str]], header: Iterable[str] = HEADER) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def command(folder: Path, rows: Iterable[Row] | Path, *flags: str) -> list[str]:
    path = rows if isinstance(rows, Path) else write_csv(folder / "list.csv", rows)
    return [
        *(sys.executable, "-m", "trainers.make_video_records", f"--csv={path}"),
        *(f"--output={folder / 'records'}", "--shards=2", "--frames_per_second=10", *flags),
    ]


def convert(
    folder: Path, rows: Iterable[Row] | Path, *flags: str
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command(folder, rows, *flags), capture_output=True, text=True)
    assert "Traceback" not in result.stderr, result.stderr
    return result


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "records").iterdir())}


@pytest.mark.slow
def test_records_are_what_the_trainer_reads(videos: Path) -> None:
    result = convert(videos, ROWS)
    assert result.returncode == 0, result.stderr
    assert "train: 5 videos of 3 classes in 2 files, 0 rows left out" in result.stdout
    source = make_source("records", "train", str(videos / "records"))
    assert source.class_names == ("jump", "run", "throw")
    examples = list(tf.data.Dataset.range(5).map(source.load).as_numpy_iterator())
    assert [int(example["label"]) for example in examples] == [1, 0, 2, 1, 0]
    expected = [[0, 1, 2, 3], [5, 6, 7, 8, 9], [0, 1, 2, 3], [0], [1, 2]]
    for example, numbers in zip(examples, expected, strict=True):
        frames = [tf.io.decode_jpeg(frame).numpy() for frame in example["frames"]]
        assert frame_numbers(frames) == numbers
    assert tf.io.decode_jpeg(examples[2]["frames"][0]).shape == (48, 32, 3)
    record = tf.train.SequenceExample.FromString(source._records.read(1))
    context = record.context.feature
    assert context["clip/label/text"].bytes_list.value[:] == [b"jump"]
    assert context["clip/start/timestamp"].int64_list.value[:] == [500_000]
    assert context["clip/end/timestamp"].int64_list.value[:] == [1_000_000]
    assert context["video/filename"].bytes_list.value[:] == [b"a.mp4"]


@pytest.mark.slow
def test_one_label_map_for_all_splits(videos: Path) -> None:
    convert(videos, ROWS)
    before = content_of(videos)
    rows: list[Row] = [("b.mp4", "", "", "throw"), ("a.mp4", "", "", "run")]
    result = convert(videos, rows, "--split=validation", "--min_side=16")
    assert result.returncode == 0, result.stderr
    source = make_source("records", "validation", str(videos / "records"))
    examples = list(tf.data.Dataset.range(2).map(source.load).as_numpy_iterator())
    assert [int(example["label"]) for example in examples] == [2, 1]
    assert tf.io.decode_jpeg(examples[0]["frames"][0]).shape == (24, 16, 3)
    assert before.items() <= content_of(videos).items()

    unknown = convert(videos, [*rows, ("a.mp4", "", "", "swim")], "--split=test", "--skip_bad")
    assert unknown.returncode == 1
    assert "row 4: the label 'swim' is not among the 3" in error_of(unknown)
    several = convert(videos, [("a.mp4", "", "", "run;jump")] * 2, "--split=test")
    assert several.returncode == 1
    assert "row 2: 2 labels" in error_of(several) and "--multi_label" in error_of(several)


@pytest.mark.slow
def test_several_labels_and_a_label_file(videos: Path) -> None:
    (videos / "classes.txt").write_text("swim\nrun\njump\n")
    rows: list[Row] = [("a.mp4", "", "", " jump ; run;jump"), ("b.mp4", "", "", "")]
    result = convert(videos, rows, f"--labels={videos / 'classes.txt'}")
    assert result.returncode == 0, result.stderr
    source = make_source("records", "train", str(videos / "records"))
    assert source.class_names == ("swim", "run", "jump")
    labels = [e["label"].tolist() for e in tf.data.Dataset.range(2).map(source.load)]
    labels = [
        example["label"].tolist()
        for example in tf.data.Dataset.range(2).map(source.load).as_numpy_iterator()
    ]
    assert labels == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.slow
def test_bad_rows(videos: Path) -> None:
    (videos / "c.mp4").write_bytes(b"no video")
    rows: list[Row] = [
        ("a.mp4", "", "", "run"),
        ("c.mp4", "", "", "run"),
        ("a.mp4", "x", "", "run"),
        ("a.mp4", "3", "2", "run"),
        ("a.mp4", "50", "60", "run"),
        ("d.mp4", "", "", "run"),
        ("a.mp4", "", "", ""),
        ("b.mp4", "", "", "jump"),
    ]
    result = convert(videos, rows, "--workers=1")
    assert result.returncode == 1
    assert "list.csv, row 3: " in error_of(result) and "c.mp4: Invalid data" in error_of(result)
    assert "--skip_bad" in error_of(result)
    assert not list((videos / "records").glob("*partial*"))

    result = convert(videos, rows, "--skip_bad")
    assert result.returncode == 0, result.stderr
    listed = [line for line in result.stdout.splitlines() if line.startswith("left out")]
    reasons = ["Invalid data", "no number of seconds", "not after", "no frame from 50 s"]
    reasons += ["No such file", "no label"]
    assert [line.split(":")[0] for line in listed] == [f"left out row {n}" for n in range(3, 9)]
    assert all(reason in line for reason, line in zip(reasons, listed, strict=True))
    assert "2 videos of 2 classes in 2 files, 6 rows left out" in result.stdout
    assert make_source("records", "train", str(videos / "records")).num_examples == 2
    # Nothing is left to do, and the same is said again.
    assert convert(videos, rows, "--skip_bad").stdout == result.stdout


@pytest.mark.slow
def test_other_options_are_refused(videos: Path) -> None:
    convert(videos, ROWS)
    before = content_of(videos)
    for rows, flag in ((ROWS, "--jpeg_quality=50"), (ROWS[::-1], "--min_side=256")):
        result = convert(videos, rows, flag)
        assert result.returncode == 2
        assert "of another list, label map or other options" in error_of(result)
    assert content_of(videos) == before


@pytest.mark.slow
def test_a_killed_conversion_ends_with_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    rows = ROWS * 12
    flags = ("--shards=12", "--workers=2", f"--output={tmp_path / 'whole' / 'records'}")
    assert convert(videos, rows, *flags).returncode == 0
    expected = content_of(tmp_path / "whole")

    flags = ("--shards=12", "--workers=2")
    for wanted in (2, 6):
        process = subprocess.Popen(command(videos, rows, *flags), stderr=subprocess.DEVNULL)
        while process.poll() is None and len(content_of_shards(videos)) < wanted:
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert wanted <= len(content_of_shards(videos)) < 12
    done = {path: os.stat(path).st_mtime_ns for path in content_of_shards(videos)[:1]}
    result = convert(videos, rows, *flags)
    assert result.returncode == 0, result.stderr
    assert content_of(videos) == expected
    assert all(os.stat(path).st_mtime_ns == time for path, time in done.items())


def content_of_shards(folder: Path) -> list[Path]:
    """Returns the finished files, the oldest first."""
    paths = list((folder / "records").glob("train.tfrecord-*"))
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shards=0"], "--shards: expected 1 to"),
        (["--shards=9"], "expected at most the 5 rows"),
        (["--jpeg_quality=101"], "--jpeg_quality: expected 1 to 100"),
        (["--split=training"], "Did you mean 'train'?"),
        (["--csv="], "Received no --csv"),
        (["--csv=nowhere.csv"], "--csv=nowhere.csv cannot be read"),
        (["--workers=0"], "--workers: expected 1 or more"),
    ],
)
def test_wrong_usage(videos: Path, flags: list[str], message: str) -> None:
    result = convert(videos, ROWS, *flags)
    assert result.returncode == 2
    assert message in error_of(result)
    assert not list(videos.glob("records/*.tfrecord*"))

"""The converter: what it writes, what it refuses, and that a kill changes nothing."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path

import pytest
import tensorflow as tf

from tests.helpers.processes import ROOT
from tests.helpers.small_runs import run_command
from trainers import make_video_records
from trainers.configuration.data_options import RecordsConfig
from trainers.data.conversion.lock import conversion_lock
from trainers.data.conversion.video_list import VideoRow
from trainers.data.conversion.writer import Conversion
from trainers.data.records import manifest
from trainers.data.records.manifest import write_labels
from trainers.data.sources import make_source
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

pytest.importorskip("av")

from tests.helpers.tiny_videos import frame_numbers  # noqa: E402
from tests.helpers.tiny_videos import write_video  # noqa: E402

Row = tuple[str, str, str, str]
Convert = Callable[..., str]
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


def arguments(folder: Path, rows: Iterable[Row], *given: str) -> list[str]:
    path = write_csv(folder / "list.csv", rows)
    output = f"--output={folder / 'records'}"
    return [f"--csv={path}", output, "--shards=2", "--frames_per_second=10", *given]


@pytest.fixture
def convert(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Convert:
    """Runs the command on a list of rows; returns what it prints."""

    def run(rows: Iterable[Row], *given: str, without: str = "") -> str:
        words = [word for word in arguments(videos, rows, *given) if word != without]
        capsys.readouterr()
        run_command(monkeypatch, make_video_records, *words)
        return capsys.readouterr().out

    return run


def content_of(folder: Path) -> dict[str, bytes]:
    paths = sorted((folder / "records").iterdir())
    return {path.name: path.read_bytes() for path in paths if path.suffix != ".lock"}


def test_records_are_what_the_trainer_reads(videos: Path, convert: Convert) -> None:
    assert "train: 5 videos of 3 classes in 2 files, 0 rows left out" in convert(ROWS)
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


def test_one_label_map_for_all_splits(videos: Path, convert: Convert) -> None:
    convert(ROWS)
    before = content_of(videos)
    rows: list[Row] = [("b.mp4", "", "", "throw"), ("a.mp4", "", "", "run")]
    convert(rows, "--split=validation")
    source = make_source("records", "validation", str(videos / "records"))
    examples = list(tf.data.Dataset.range(2).map(source.load).as_numpy_iterator())
    assert [int(example["label"]) for example in examples] == [2, 1]
    assert before.items() <= content_of(videos).items()

    with pytest.raises(ConfigurationError, match=r"per_second=5\.0 differs.*Set --frames_per_sec"):
        convert(rows, "--split=test", "--frames_per_second=5")
    with pytest.raises(ConfigurationError, match=r"dataset\.json.*Set --min_side=256, or convert"):
        convert(rows, "--split=test", "--min_side=16")
    with pytest.raises(DataError, match="row 4: the label 'swim' is not among the 3"):
        convert([*rows, ("a.mp4", "", "", "swim")], "--split=test", "--skip_bad")
    with pytest.raises(DataError, match="row 2: 2 labels.*--multi_label"):
        convert([("a.mp4", "", "", "run;jump")] * 2, "--split=test")
    with pytest.raises(ConfigurationError, match="--multi_label=True differs"):
        convert(rows, "--split=test", "--multi_label")
    (videos / "classes.txt").write_text("swim\n")
    with pytest.raises(ConfigurationError, match=r"classes\.txt differs from"):
        convert(rows, "--split=test", f"--labels={videos / 'classes.txt'}")


def test_several_labels_and_a_label_file(videos: Path, convert: Convert) -> None:
    (videos / "classes.txt").write_text("swim\nrun\njump\n")
    rows: list[Row] = [("a.mp4", "", "", " jump ; run;jump"), ("b.mp4", "", "", "")]
    convert(rows, f"--labels={videos / 'classes.txt'}")
    several = RecordsConfig(multi_label=True)
    source = make_source("records", "train", str(videos / "records"), records=several)
    assert source.class_names == ("swim", "run", "jump")
    labels = [
        example["label"].tolist()
        for example in tf.data.Dataset.range(2).map(source.load).as_numpy_iterator()
    ]
    assert labels == [[0, 1, 1], [0, 0, 0]]


def test_bad_rows(videos: Path, convert: Convert) -> None:
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
    # What the list itself says is seen before anything is read or written.
    mistakes = r"4 of 8 rows have mistakes, row 4: .*; row 5: .*; row 7: /.*d\.mp4: no such file; …"
    with pytest.raises(DataError, match=mistakes + ".*--skip_bad"):
        convert(rows)
    assert not (videos / "records").exists()
    elsewhere = videos / "elsewhere"
    with pytest.raises(DataError, match=r"list\.csv, row 3: .*c\.mp4: Invalid data.*--skip_bad"):
        convert(rows[:2], "--workers=1", f"--output={elsewhere}")
    assert not list(elsewhere.glob("*partial*"))

    output = convert(rows, "--skip_bad")
    listed = [line for line in output.splitlines() if line.startswith("left out")]
    reasons = ["Invalid data", "not a number of seconds", "not after", "no frame from 50 s"]
    reasons += ["no such file", "no label"]
    assert [line.split(":")[0] for line in listed] == [f"left out row {n}" for n in range(3, 9)]
    assert all(reason in line for reason, line in zip(reasons, listed, strict=True))
    assert "2 videos of 2 classes in 2 files, 6 rows left out" in output
    assert make_source("records", "train", str(videos / "records")).num_examples == 2
    # Nothing is left to do, and the same is said again.
    assert convert(rows, "--skip_bad") == output


def test_a_truncated_video_is_a_bad_row(videos: Path, convert: Convert) -> None:
    path = write_video(videos / "c.mkv", 30, rate=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    rows: list[Row] = [*ROWS, ("c.mkv", "", "", "run")]
    with pytest.raises(DataError, match=r"row 7: .*c\.mkv is truncated: expected 3\.00 s"):
        convert(rows)
    assert "left out row 7: " in convert(rows, "--skip_bad")


def test_a_mended_video_gets_in(videos: Path, convert: Convert) -> None:
    (videos / "c.mp4").write_bytes(b"no video")
    rows: list[Row] = [("a.mp4", "", "", "run"), *ROWS, ("c.mp4", "", "", "run")]
    convert(rows, "--skip_bad")
    before = content_of(videos)
    with pytest.raises(DataError, match=r"row 8: .*c\.mp4: Invalid data.*--skip_bad"):
        convert(rows)
    assert content_of(videos) == before
    (videos / "c.mp4").unlink()
    with pytest.raises(DataError, match=r"row 8: .*c\.mp4: no such file"):
        convert(rows)
    # The reason is the one of today.
    assert "left out row 8: " + str(videos / "c.mp4: no such file") in convert(rows, "--skip_bad")

    write_video(videos / "c.mp4", 3, rate=10)
    assert "7 videos of 3 classes in 2 files, 0 rows left out" in convert(rows, "--skip_bad")
    assert make_source("records", "train", str(videos / "records")).num_examples == 7
    first = "train.tfrecord-00000-of-00002"
    assert content_of(videos)[first] == before[first]
    # Finished files do without their videos.
    (videos / "c.mp4").unlink()
    assert "0 rows left out" in convert(rows)


def test_only_files_of_corrected_rows_are_made_anew(
    videos: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(ROWS)
    shards = sorted((videos / "records").glob("train.tfrecord-*"))
    written = [path.stat().st_mtime_ns for path in shards]
    rows: list[Row] = [*ROWS[:4], ("b.mp4", "0.1", "0.3", "throw")]
    monkeypatch.setattr(Conversion, "_write_shard", _fail)
    with pytest.raises(DataError, match="no second shard"):
        convert(rows)
    assert [path.exists() for path in shards] == [True, False]
    monkeypatch.undo()
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(videos / "cache"))
    convert(rows)
    assert shards[0].stat().st_mtime_ns == written[0]
    source = make_source("records", "train", str(videos / "records"))
    assert int(source.load(tf.constant(4))["label"]) == 2


def test_files_that_are_cut_off_or_removed_are_made_anew(videos: Path, convert: Convert) -> None:
    convert(ROWS)
    before = content_of(videos)
    first, second = sorted((videos / "records").glob("train.tfrecord-*"))
    first.write_bytes(first.read_bytes()[:-7])
    with pytest.raises(DataError, match="cut off.*remove it, and the same make_video_records"):
        make_source("records", "train", str(videos / "records"))
    second.unlink()
    convert(ROWS)
    assert content_of(videos) == before


def _fail(*_: object) -> None:
    raise DataError("no second shard")


def test_labels_that_are_not_in_the_given_file(videos: Path, convert: Convert) -> None:
    given = f"--labels={videos / 'classes.txt'}"
    with pytest.raises(ConfigurationError, match=r"--labels=.*classes\.txt cannot be read: "):
        convert(ROWS, given)
    (videos / "classes.txt").write_text("run\njumps\nthrow\n")
    message = r"row 3: .*'jump' is not among the 3 of --labels=.*'jumps'\? Correct .* to that file"
    with pytest.raises(DataError, match=message):
        convert(ROWS, given)
    assert not (videos / "records").exists()


@pytest.mark.parametrize(("count", "shards"), [(1, 1), (256, 1), (257, 2)])
def test_number_of_files(
    count: int, shards: int, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversions: list[Conversion] = []
    monkeypatch.setattr(make_video_records, "_convert", conversions.append)
    values = ROWS[:1] * count
    convert(values, without="--shards=2")
    assert conversions[0].options.num_shards == shards


def test_other_options_are_refused(videos: Path, convert: Convert) -> None:
    convert(ROWS)
    before = content_of(videos)
    for rows, flag in ((ROWS, "--jpeg_quality=50"), (ROWS[::-1], "--min_side=256")):
        with pytest.raises(ConfigurationError, match="of another list, label map or other opt"):
            convert(rows, flag)
    assert content_of(videos) == before


def test_a_mistake_before_the_first_shard_leaves_no_class(videos: Path, convert: Convert) -> None:
    (videos / "c.mp4").write_bytes(b"no video")
    rows: list[Row] = [("a.mp4", "", "", "run"), ("c.mp4", "", "", "junp")]
    with pytest.raises(DataError, match=r"row 3: .*c\.mp4"):
        convert(rows, "--shards=1")
    rows[1] = ("b.mp4", "", "", "jump")
    convert(rows)
    assert (videos / "records" / "labels.txt").read_text().split() == ["jump", "run"]
    rows[1] = ("b.mp4", "", "", "junp")
    with pytest.raises(DataError, match=r"'junp' is not among .*labels\.txt and dataset\.json"):
        convert(rows)


def test_two_splits_at_once(
    videos: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    records = videos / "records"
    records.mkdir()
    write_labels(str(records), ["swim", "run", "jump", "throw"])
    checked = []

    def write_and_check(output: str, labels: Sequence[str]) -> None:
        write_labels(output, labels)
        with (records / ".labels.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        checked.append(labels)

    monkeypatch.setattr(manifest, "write_labels", write_and_check)
    with conversion_lock(str(records), "validation"):
        # No shard is there, but the other conversion counts by this label map already.
        convert(ROWS)
        with pytest.raises(ConfigurationError, match="Another conversion of this split .process"):
            convert(ROWS, "--split=validation")
    assert checked == [("swim", "run", "jump", "throw")]


def test_the_home_directory(
    videos: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(videos))
    (videos / "classes.txt").write_text("throw\njump\nrun\n")
    convert(ROWS, "--csv=~/list.csv", "--output=~/records", "--labels=~/classes.txt")
    assert (videos / "records" / "labels.txt").read_text() == "throw\njump\nrun\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk(convert: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    write = tf.io.TFRecordWriter
    monkeypatch.setattr(tf.io, "TFRecordWriter", lambda path: write("/dev/full"))
    with pytest.raises(OSError, match="train.tfrecord-00000-of-00001.*[Nn]o space"):
        convert(ROWS, "--shards=1")


#: The command in a process that kills itself once so many files are finished.
_KILLED_CONVERSION = """
import os, signal, sys
from trainers import make_video_records
from trainers.data.conversion.writer import Conversion
from trainers.utils import cli

finished = int(sys.argv.pop(1))
save = Conversion._save_results

def save_and_die(self):
    save(self)
    if len(self.results) >= finished:
        os.kill(os.getpid(), signal.SIGKILL)

Conversion._save_results = save_and_die
make_video_records.define_flags()
cli.run(make_video_records.main, cli.parse_known_flags)
"""


@pytest.mark.slow
def test_a_killed_conversion_ends_with_the_same_bytes(videos: Path, convert: Convert) -> None:
    rows = ROWS * 12
    given = ("--shards=12", "--workers=2")
    convert(rows, *given, f"--output={videos / 'whole' / 'records'}")
    expected = content_of(videos / "whole")
    for finished in ("2", "6"):
        command = [sys.executable, "-c", _KILLED_CONVERSION, finished]
        process = subprocess.run(
            [*command, *arguments(videos, rows, *given)], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        assert process.returncode == -signal.SIGKILL
        assert int(finished) <= len(content_of_shards(videos))
    done = {path: os.stat(path).st_mtime_ns for path in content_of_shards(videos)[:1]}
    convert(rows, *given)
    assert content_of(videos) == expected
    assert all(os.stat(path).st_mtime_ns == written for path, written in done.items())


def content_of_shards(folder: Path) -> list[Path]:
    """Returns the finished files, the oldest first."""
    paths = list((folder / "records").glob("train.tfrecord-*"))
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--shards=0"], "--shards: expected 1 to"),
        (["--shards=9"], "expected at most the 5 rows"),
        (["--jpeg_quality=101"], "--jpeg_quality: expected 1 to 100"),
        (["--split=training"], "Did you mean 'train'"),
        (["--csv="], "Received no --csv"),
        (["--output=README.md"], "--output=README.md: expected a folder, received a file"),
        (["--csv=nowhere.csv"], "--csv=nowhere.csv cannot be read: No such file or directory.$"),
        (["--workers=0"], "--workers: expected 1 or more"),
    ],
)
def test_wrong_usage(videos: Path, convert: Convert, given: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        convert(ROWS, *given)
    assert not list(videos.glob("records/*.tfrecord*"))


def test_classes_that_are_numbers_keep_them() -> None:
    labels = [(str(number),) for number in (10, 9, 0, 1)]
    rows = [VideoRow(2, "a", "a", None, None, label) for label in labels]
    assert make_video_records.sorted_labels(rows) == ("0", "1", "9", "10")

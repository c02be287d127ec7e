import json
from pathlib import Path

import pytest
import tensorflow as tf

from trainers.utils import files
from trainers.utils.reporting import MetricsWriter
from trainers.utils.reporting import ProgressLine
from trainers.utils.reporting import format_metrics
from trainers.utils.reporting import read_metrics


@pytest.fixture
def workdir(directory: str) -> str:
    """A work directory that is there."""
    files.make_directories(directory)
    return directory


def _write(workdir: str, first_step: int, *steps: int) -> None:
    writer = MetricsWriter(workdir, first_step)
    for step in steps:
        writer.write(step, "train", {"loss": step / 3, "accuracy": 0.5})
        writer.fsync()
    writer.close()


def test_rows_are_appended(workdir: str) -> None:
    path = files.join(workdir, "metrics.jsonl")
    assert read_metrics(path) == []
    _write(workdir, 0)
    assert read_metrics(path) == []
    _write(workdir, 0, 1, 2)
    _write(workdir, 2, 3)
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[1] == {"step": 2, "split": "train", "loss": 2 / 3, "accuracy": 0.5}
    events = files.list_names(files.join(workdir, "tensorboard"))
    assert events and all(name.startswith("events") for name in events)


def test_what_a_kill_has_left_is_dropped(workdir: str) -> None:
    path = files.join(workdir, "metrics.jsonl")
    _write(workdir, 0, 1, 2, 3)
    # A row cut off inside of a character of two bytes.
    files.append(path, json.dumps({"step": 4, "split": "é"}, ensure_ascii=False).encode()[:-3])
    _write(workdir, 2, 3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert files.read(path).count(b"\n") == 3


def _points(workdir: str) -> list[tuple[int, str, float]]:
    """Returns every point of TensorBoard, as it stands in the event files."""
    folder = files.join(workdir, "tensorboard")
    paths = [files.join(folder, name) for name in files.list_names(folder)]
    events = [event for path in paths for event in tf.compat.v1.train.summary_iterator(path)]
    return [
        (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
        for event in sorted(events, key=lambda event: event.step)
        for value in event.summary.value
    ]


def test_what_a_kill_has_left_is_dropped_from_tensorboard(workdir: str) -> None:
    _write(workdir, 0, 1, 2, 3)
    folder = files.join(workdir, "tensorboard")
    (name,) = files.list_names(folder)
    whole = files.read(files.join(folder, name))
    files.write_atomically(files.join(folder, name), whole[:-3])  # a kill in the last point
    # A kill while points were dropped.
    files.write(files.join(folder, f"{files.PARTIAL}{name}"), whole)
    _write(workdir, 2, 3, 4)
    expected = [
        (step, f"train/{name}", pytest.approx(value))
        for step in (1, 2, 3, 4)
        for name, value in (("loss", step / 3), ("accuracy", 0.5))
    ]
    assert _points(workdir) == expected
    # Nothing to drop: nothing is written.
    before = {name: files.read(files.join(folder, name)) for name in files.list_names(folder)}
    MetricsWriter(workdir, 4)
    assert (
        before.items()
        <= {name: files.read(files.join(folder, name)) for name in files.list_names(folder)}.items()
    )


def test_a_row_is_on_the_disk_when_it_is_written(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, "train", {"loss": 0.1})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


@pytest.mark.parametrize("unit", ["images", "clips"])
def test_the_progress_line_names_what_a_batch_is_made_of(
    unit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressLine(total_steps=4, first_step=0, batch_size=8, unit=unit) as progress:
        progress.update(4, steps_per_second=2.5, data_wait=0.25)
    expected = f"step 4/4, 2.5 steps/s, 20 {unit}/s, waiting for data 25%, 0 s left\n"
    assert capsys.readouterr().out == expected


def test_the_time_of_the_compilation_is_no_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(total_steps=4, first_step=0, batch_size=8) as progress:
        progress.update(4, steps_per_second=None, data_wait=None)
    assert capsys.readouterr().out == "step 4/4, compiled\n"


def test_metrics_for_people() -> None:
    text = format_metrics({"accuracy": 0.87123, "num_examples": 270, "top5_accuracy": 1.0})
    assert text == "accuracy 0.8712, num examples 270, top5 accuracy 1"

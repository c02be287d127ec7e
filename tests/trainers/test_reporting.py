import json
from pathlib import Path

import pytest

from trainers import files
from trainers.reporting import MetricsWriter
from trainers.reporting import ProgressLine
from trainers.reporting import format_metrics
from trainers.reporting import read_metrics


@pytest.fixture
def workdir(directory: str) -> str:
    """A work directory that is there."""
    files.make_directories(directory)
    return directory


def _write(workdir: str, first_step: int, *steps: int) -> None:
    writer = MetricsWriter(workdir, first_step)
    for step in steps:
        writer.write(step, "train", {"loss": step / 3, "accuracy": 0.5})
        writer.force()
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


def test_metrics_for_people() -> None:
    text = format_metrics({"accuracy": 0.87123, "num_examples": 270, "top5_accuracy": 1.0})
    assert text == "accuracy 0.8712, num examples 270, top5 accuracy 1"

"""The trainer on records of videos of which some cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import rows
from tests.helpers.small_runs import run_command
from tests.helpers.video_record_sets import SmallVideo
from tests.helpers.video_record_sets import describe
from tests.helpers.video_record_sets import write_split
from trainers import evaluate
from trainers import train
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.reporting import format_metrics

CONFIG = """
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.batch_size = 4
    config.total_steps = 4
    config.log_steps = 2
    config.checkpoint_steps = 2
    config.model = {
        "name": "vivit_ti8x2_d1_tl2at0",
        "image_size": 16,
        "num_frames": 4,
        "width": 16,
        "num_heads": 2,
        "mlp_dim": 32,
    }
    config.data = {"source": "records", "final_split": "test"}
    config.video = {"stride": 1, "min_resize": 16, "temporal_views": 2, "spatial_views": 1}
    config.optimizer = {"learning_rate": 0.01, "schedule": "constant"}
    return config
"""
BAD = (1, 6)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Eight videos to train on, five to validate and four to test, of one to four frames."""
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))
    describe(tmp_path / "records", ["a", "b"])
    for split, count in (("train", 8), ("validation", 5), ("test", 4)):
        videos = [
            SmallVideo(
                number,
                (number % 2,),
                num_frames=1 + number % 4,
                corrupt_frame=number % 4 if number in BAD else None,
            )
            for number in range(count)
        ]
        write_split(tmp_path / "records", split, videos)
    return f"--config.data.data_dir={tmp_path / 'records'}"


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    return Trainer(monkeypatch, tmp_path, CONFIG)


@pytest.mark.slow
def test_the_first_one_stops_the_training(trainer: Trainer, data_dir: str) -> None:
    message = r"cannot decode frame [12], .*/train\.tfrecord-0000[01]-of-00002, record [12] "
    with pytest.raises(DataError, match=message):
        trainer("run", data_dir)


@pytest.fixture
def evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Evaluates a work directory by the command; returns what it prints."""

    def run(workdir: Path, *arguments: str) -> str:
        capsys.readouterr()
        fixed = [f"--workdir={workdir}", "--strategy=one_device"]
        run_command(monkeypatch, evaluate, *fixed, *arguments)
        return capsys.readouterr().out

    return run


@pytest.mark.extra
def test_up_to_a_limit_the_training_resumes_exactly_after_a_stop(
    trainer: Trainer,
    data_dir: str,
    capsys: pytest.CaptureFixture[str],
    evaluated: Callable[..., str],
) -> None:
    allowed = (data_dir, "--config.data.max_bad_examples=2")
    whole = trainer("whole", *allowed)
    printed = capsys.readouterr().out
    for split, count in {"train": "2 of 8", "validation": "1 of 5", "test": "1 of 4"}.items():
        assert f"records/{split}: {count} examples cannot be read, 2 are allowed" in printed
    assert _listed(whole) == [
        ("records/test", 1),
        *(("records/train", index) for index in BAD),
        ("records/validation", 1),
    ]
    assert [row["bad_examples"] for row in rows(whole, "train")] == [2, 2]
    # What is evaluated is only what can be read.
    assert [row["num_examples"] for row in rows(whole, "validation")] == [4]
    (tested,) = rows(whole, "test")
    assert tested["num_examples"] == 3

    # One more than allowed stops the training; it resumes with a higher limit.
    message = r"2 examples of records/train cannot be read, more than data\.max_bad_examples=1"
    with pytest.raises(DataError, match=message) as error:
        trainer("stopped", data_dir, "--config.data.max_bad_examples=1")
    assert "\n" not in str(error.value)
    trainer("stopped", *allowed, "--config.total_steps=2")
    stopped = trainer("stopped", *allowed)
    assert_same_arrays(checkpoint_arrays(whole, 4), checkpoint_arrays(stopped, 4))
    assert _listed(stopped) == _listed(whole)
    assert rows(stopped, "test")[-1] == tested

    # The command that evaluates has the limit of the training, or one of its own.
    metrics = {name: value for name, value in tested.items() if name not in ("step", "split")}
    assert f"test: {format_metrics(metrics)}" in evaluated(whole, "--split=test")
    with pytest.raises(DataError, match="frame 1, .*test.tfrecord-00000-of-00002, record 1"):
        evaluated(whole, "--split=test", "--max_bad_examples=0")


@pytest.mark.extra
def test_a_dry_run_goes_by_the_same_limit(
    trainer: Trainer,
    data_dir: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "print_memory", lambda *_: None)  # compiles for long
    workdir = trainer("run", data_dir, "--dry_run", "--config.data.max_bad_examples=2")
    printed = capsys.readouterr().out
    assert "one batch of validation: " in printed and "num examples 3\n" in printed
    assert not workdir.exists()
    with pytest.raises(ConfigurationError, match="cannot decode frame"):
        trainer("run", data_dir, "--dry_run")


def _listed(workdir: Path) -> list[tuple[str, int]]:
    lines = (workdir / "bad_examples.jsonl").read_text().splitlines()
    return sorted((row["source"], row["index"]) for row in map(json.loads, lines))

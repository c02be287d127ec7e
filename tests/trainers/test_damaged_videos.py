"""The trainer on records of videos of which some cannot be read."""

import json
from pathlib import Path

import pytest

from tests.trainers.data.video_record_sets import SmallVideo
from tests.trainers.data.video_record_sets import describe
from tests.trainers.data.video_record_sets import write_split
from tests.trainers.small_runs import Trainer
from tests.trainers.small_runs import assert_same_arrays
from tests.trainers.small_runs import checkpoint_arrays
from tests.trainers.small_runs import rows
from trainers.errors import DataError

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
    config.data = {"source": "records"}
    config.video = {"stride": 1, "min_resize": 16}
    config.optimizer = {"learning_rate": 0.01, "schedule": "constant"}
    return config
"""
BAD = (1, 6)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Eight videos to train on, and five to validate, of one to four frames."""
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))
    describe(tmp_path / "records", ["a", "b"])
    for split, count in (("train", 8), ("validation", 5)):
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


def test_the_first_one_stops_the_training(trainer: Trainer, data_dir: str) -> None:
    message = r"cannot decode frame [12], .*/train\.tfrecord-0000[01]-of-00002, record [12] "
    with pytest.raises(DataError, match=message):
        trainer("run", data_dir)


def test_up_to_a_limit_the_training_goes_on_the_same_after_a_stop(
    trainer: Trainer, data_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = (data_dir, "--config.data.max_bad_examples=2")
    whole = trainer("whole", *allowed)
    assert "records/train: 2 of 8 examples cannot be read, 2 are allowed" in capsys.readouterr().out
    lines = (whole / "bad_examples.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["index"] for line in lines) == list(BAD)
    assert [row["bad_examples"] for row in rows(whole, "train")] == [2, 2]
    # The second video of the validation split is left out.
    assert [row["num_examples"] for row in rows(whole, "validation")] == [4]

    trainer("stopped", *allowed, "--config.total_steps=2")
    stopped = trainer("stopped", *allowed)
    assert_same_arrays(checkpoint_arrays(whole, 4), checkpoint_arrays(stopped, 4))


def test_one_more_than_the_limit_stops_the_training(trainer: Trainer, data_dir: str) -> None:
    message = r"2 examples of records/train cannot be read, more than data\.max_bad_examples=1"
    with pytest.raises(DataError, match=message):
        trainer("run", data_dir, "--config.data.max_bad_examples=1")

"""Training and evaluating on videos: clips, views, several labels."""

from pathlib import Path

import numpy as np
import pytest

from tests.trainers.small_runs import Trainer
from tests.trainers.small_runs import assert_same_arrays
from tests.trainers.small_runs import checkpoint_arrays
from tests.trainers.small_runs import rows
from tests.trainers.video_runs import CONVOLUTIONS
from tests.trainers.video_runs import TRANSFORMER
from tests.trainers.video_runs import video_config
from trainers.data.in_memory_video import InMemoryVideoSource
from trainers.errors import ConfigurationError
from trainers.run_checks import check_labels


def _trainer(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: dict[str, object], multi_label: bool
) -> Trainer:
    return Trainer(monkeypatch, folder, video_config(folder, model, multi_label))


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("model", [TRANSFORMER, CONVOLUTIONS], ids=["transformer", "convolutions"])
def test_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: dict[str, object], multi_label: bool
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, model, multi_label)
    workdir = trainer("run")
    metric = "mean_average_precision" if multi_label else "accuracy"
    for split, count in (("validation", 5), ("test", 4)):
        (row,) = rows(workdir, split)
        assert row["num_examples"] == count
        assert 0 <= row[metric] <= 1 and np.isfinite(row["loss"])
    trainer("stopped", "--config.total_steps=2")
    stopped = trainer("stopped", "--config.total_steps=4")
    assert_same_arrays(checkpoint_arrays(workdir, 4), checkpoint_arrays(stopped, 4))


def test_images_are_no_videos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer = _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label=False)
    with pytest.raises(ConfigurationError, match="takes videos, and digits holds images"):
        trainer("run", "--config.data.source=digits")


def test_several_labels_need_the_sigmoid_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label=True)
    with pytest.raises(ConfigurationError, match="loss='sigmoid'"):
        trainer("run", "--config.loss=softmax")


@pytest.mark.parametrize(
    ("source", "multi_label"),
    [("freedoom_multilabel", False), ("freedoom_motion", True), ("video_folder", True)],
)
def test_labels_that_the_name_of_the_data_rules_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, multi_label: bool
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label)
    message = (
        f"data.multi_label is {multi_label}, and each example of {source} has .*={not multi_label}"
    )
    with pytest.raises(ConfigurationError, match=message):
        trainer("run", f"--config.data.source={source}")


@pytest.mark.parametrize("several", [False, True])
def test_labels_are_what_the_configuration_says(several: bool) -> None:
    labels = np.array([[0, 1]]) if several else np.array([1])
    videos = np.zeros((1, 2, 8, 8, 3), np.uint8)
    source = InMemoryVideoSource("clips", "train", videos, labels, ("a", "b"))
    check_labels(source, several, is_trained_on=True)
    with pytest.raises(ConfigurationError, match=f"each example of clips has .*={several}"):
        check_labels(source, not several, is_trained_on=True)
    check_labels(source, multi_label=False)  # to be evaluated, by any label that is right


def test_records_of_several_labels_are_no_records_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label=True)
    with pytest.raises(ConfigurationError, match=r"Set data\.multi_label=True"):
        trainer("run", "--config.data.multi_label=False", "--config.loss=softmax")

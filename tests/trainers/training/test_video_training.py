"""Training and evaluating on videos: clips, views, several labels."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import rows
from tests.helpers.small_runs import run_command
from tests.helpers.video_runs import CONVOLUTIONS
from tests.helpers.video_runs import TRANSFORMER
from tests.helpers.video_runs import video_config
from trainers import evaluate
from trainers.configuration.configuration import base_config
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.datasets.in_memory import InMemorySource
from trainers.preflight import check_labels
from trainers.preflight import check_sources
from trainers.utils.errors import ConfigurationError


def _trainer(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: dict[str, object], multi_label: bool
) -> Trainer:
    return Trainer(monkeypatch, folder, video_config(folder, model, multi_label))


def _evaluated(monkeypatch: pytest.MonkeyPatch, workdir: Path, *arguments: str) -> dict[str, Any]:
    """Returns what the command that evaluates reports, as a row of the training."""
    report = workdir.parent / "report.json"
    fixed = [f"--workdir={workdir}", f"--report={report}", "--strategy=one_device"]
    run_command(monkeypatch, evaluate, *fixed, *arguments)
    found = json.loads(report.read_text())
    ((split, results),) = found["sets"].items()
    return {"step": found["step"], "split": split, **results["metrics"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "multi_label"),
    [
        pytest.param(TRANSFORMER, True, id="transformer"),
        pytest.param(CONVOLUTIONS, False, marks=pytest.mark.extra, id="convolutions"),
        pytest.param(TRANSFORMER, False, marks=pytest.mark.extra, id="transformer, one label"),
        pytest.param(CONVOLUTIONS, True, marks=pytest.mark.extra, id="convolutions, many labels"),
    ],
)
def test_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: dict[str, object], multi_label: bool
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, model, multi_label)
    workdir = trainer("run")
    is_evaluated_again = model is CONVOLUTIONS and not multi_label
    metric = "mean_average_precision" if multi_label else "accuracy"
    for split, count in (("validation", 5), ("test", 4)):
        (row,) = rows(workdir, split)
        assert row["num_examples"] == count
        assert 0 <= row[metric] <= 1 and np.isfinite(row["loss"])
        if is_evaluated_again:
            noviews = [] if split == "test" else ["--noviews"]
            assert _evaluated(monkeypatch, workdir, f"--split={split}", *noviews) == row
    if is_evaluated_again:
        larger = _evaluated(monkeypatch, workdir, "--split=test", "--image_size=40")
        assert larger["num_examples"] == 4 and larger["loss"] != row["loss"]
    trainer("stopped", "--config.total_steps=2")
    stopped = trainer("stopped", "--config.total_steps=4")
    assert_same_arrays(checkpoint_arrays(workdir, 4), checkpoint_arrays(stopped, 4))


@pytest.mark.slow
def test_a_dry_run_rehearses_the_views(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label=True)("run", "--dry_run")
    lines = capsys.readouterr().out.splitlines()
    batches = {line.split(":")[0]: line for line in lines if line.startswith("one batch of")}
    # A batch of four clips; of videos with six views each, one.
    assert batches["one batch of validation"].endswith("num examples 4")
    assert batches["one batch of test"].endswith("num examples 1")
    start = "memory of a replica's evaluation step of views: "
    (memory,) = [line for line in lines if line.startswith(start)]
    assert "as compiled by XLA" in memory


@pytest.mark.parametrize(
    ("metric", "multi_label"),
    [("mean_average_precision", False), ("mean_class_accuracy", True), ("accuracy", True)],
)
def test_a_best_metric_that_the_labels_do_not_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metric: str, multi_label: bool
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label)
    with pytest.raises(ConfigurationError, match=f"{metric}.*data.multi_label={multi_label}"):
        trainer("run", f"--config.keep_best_metric={metric}")


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
    source = InMemorySource("clips", "train", videos, labels, ("a", "b"))
    check_labels(source, several, is_trained_on=True)
    with pytest.raises(ConfigurationError, match=f"each example of clips has .*={several}"):
        check_labels(source, not several, is_trained_on=True)
    check_labels(source, multi_label=False)  # to be evaluated, by any label that is right


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_batch_larger_than_the_set_is_told(
    batch_size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocessing = VideoPreprocessingConfig((8, 8), num_frames=2)
    videos = np.zeros((1, 2, 8, 8, 3), np.uint8)
    source = InMemorySource("clips", "train", videos, np.array([1]), ("a", "b"))
    config = base_config()
    config.batch_size = batch_size
    check_sources(config, preprocessing, source, {"validation": source})
    assert ("a batch of 2 is more than the 1 examples" in capsys.readouterr().err) == (
        batch_size == 2
    )


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (("turn left", "turn right"), "2 of 2 classes name a side (turn left, turn right)"),
        (("Pushing something from LEFT to right", "stop"), "1 of 2 classes name a side (Pushing"),
        (("LeftTurn", "stop"), "(LeftTurn)"),
        (("goleft", "goright"), "(goleft, goright)"),
        (("swipe_rightwards", "stop"), "(swipe_rightwards)"),
        (("bright", "leftovers"), ""),
    ],
)
def test_mirrored_clips_of_classes_that_name_a_side(
    names: tuple[str, ...], warned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = base_config()
    config.batch_size = 1
    videos, labels = np.zeros((2, 2, 8, 8, 3), np.uint8), np.array([0, 1])
    clips = InMemorySource("clips", "train", videos, labels, names)
    images = InMemorySource("images", "train", videos[:, 0], labels, names)
    for source, preprocessing, section in (
        (clips, functools.partial(VideoPreprocessingConfig, (8, 8), num_frames=2), "video"),
        (images, functools.partial(PreprocessingConfig, (8, 8)), "augmentation"),
    ):
        check_sources(config, preprocessing(flip=True), source, {"validation": source})
        error = capsys.readouterr().err
        assert warned in error and bool(warned) == (f"--config.{section}.flip=False" in error)
        check_sources(config, preprocessing(flip=False), source, {"validation": source})
        assert not capsys.readouterr().err
    # The labels of these are mirrored as well.
    clips = InMemorySource("clips", "train", videos, labels, names, mirrored_classes=(1, 0))
    check_sources(config, VideoPreprocessingConfig((8, 8), 2), clips, {"validation": clips})
    assert not capsys.readouterr().err


def test_the_mean_over_classes_needs_one_label_an_example() -> None:
    preprocessing = VideoPreprocessingConfig((8, 8), num_frames=2)
    videos, names = np.zeros((1, 2, 8, 8, 3), np.uint8), ("a", "b")
    one = InMemorySource("clips", "train", videos, np.array([1]), names)
    several = InMemorySource("clips", "test", videos, np.array([[0, 1]]), names)
    config = base_config()
    config.keep_best_metric = "mean_class_accuracy"
    check_sources(config, preprocessing, one, {"validation": one, "test": several})
    with pytest.raises(ConfigurationError, match="those of 'test' have any number"):
        check_sources(config, preprocessing, one, {"test": several, "validation": one})
    config.keep_best_metric = "top5_accuracy"
    with pytest.raises(ConfigurationError, match="needs more than 5 classes. Received 2"):
        check_sources(config, preprocessing, one, {"validation": one})


def test_records_of_several_labels_are_no_records_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label=True)
    with pytest.raises(
        ConfigurationError, match="--config.data.multi_label=True --config.loss=sigmoid"
    ):
        trainer("run", "--config.data.multi_label=False", "--config.loss=softmax")

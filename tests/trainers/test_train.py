"""The trainer's command, inside this process."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import rows
from trainers.checkpointing.store import CheckpointStore
from trainers.evaluation.evaluator import Evaluator
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.errors import TrainingError
from trainers.utils.lock import LOCK_FILE
from trainers.utils.lock import workdir_lock


@pytest.mark.slow
def test_a_run_in_pieces_ends_like_a_run_in_one_go(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [
        "--config.model.dropout=0.1",
        "--config.data.mixup_alpha=0.3",
        "--config.augmentation.crop=pad",
        "--config.augmentation.padding=1",
        "--config.ema_decay=0.9",
        "--config.eval_steps=2",
        "--config.keep_checkpoints=9",
        "--config.data.final_split=test",
    ]
    whole = trainer("whole", *flags, "--config.total_steps=5")
    pieces = trainer("pieces", *flags, "--config.total_steps=3")
    # A run that was killed leaves rows after its checkpoint, and a line cut off.
    with open(pieces / "metrics.jsonl", "a") as file:
        for step in (4, 5):
            file.write(json.dumps({"step": step, "split": "train", "loss": 99}) + "\n")
        file.write('{"step": 5, "split": "val')
    (pieces / "checkpoints" / ".partial-step_00000004").mkdir()
    trainer("pieces", *flags, "--config.total_steps=5")

    assert_same_arrays(checkpoint_arrays(pieces, 5), checkpoint_arrays(whole, 5))
    assert [row["step"] for row in rows(pieces, "train")] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows(whole, "validation")] == [2, 4, 5]
    assert [row["step"] for row in rows(pieces, "validation")] == [2, 3, 4, 5]
    for split in ("train", "validation", "test"):
        by_step = {row["step"]: row for row in rows(pieces, split)}
        for row in rows(whole, split):
            for name in {"loss", "accuracy", "gradient_norm", "num_examples"} & row.keys():
                assert by_step[row["step"]][name] == row[name], (split, name)
    assert rows(whole, "validation")[0]["num_examples"] == 269

    # The same command again finds all done, and leaves the test split alone.
    def fail(*arguments: object) -> None:
        raise AssertionError("evaluated again")

    before = rows(whole)
    monkeypatch.setattr(Evaluator, "evaluate", fail)
    trainer("whole", *flags, "--config.total_steps=5")
    assert rows(whole) == before

    # The run can be made longer, but not become another one.
    with pytest.raises(ConfigurationError, match=r"seed: 0 there, 1 here"):
        trainer("whole", *flags, "--config.seed=1")
    with pytest.raises(ConfigurationError, match=r"model.dropout: 0.1 there, None here"):
        trainer("whole", *flags[1:], "--config.total_steps=5")
    assert rows(whole) == before


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux' list of open files")
def test_a_run_opens_no_more_and_more_files(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    save = CheckpointStore.save

    def save_and_count(self: CheckpointStore, *arguments: Any) -> None:
        save(self, *arguments)
        self.wait()  # nothing is being written while they are counted
        opened.append(len(os.listdir("/proc/self/fd")))

    monkeypatch.setattr(CheckpointStore, "save", save_and_count)
    intervals = [f"--config.{name}_steps=1" for name in ("log", "eval", "checkpoint")]
    trainer("run", "--config.total_steps=12", *intervals)
    # The first ones open what stays open: TensorBoard's file, and what is loaded when needed.
    assert len(opened) == 12 and max(opened[6:]) <= max(opened[2:6])


@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.every_backend), 2])
@pytest.mark.slow
def test_a_row_says_the_rate_of_its_last_step(trainer: Trainer, accumulation: int) -> None:
    flags = [
        "--config.total_steps=8",
        "--config.warmup_steps=4",
        "--config.log_steps=2",
        "--config.steps_per_loop=3",
        "--config.optimizer.name=sgd",
        "--config.optimizer.schedule=linear",
        f"--config.gradient_accumulation_steps={accumulation}",
    ]
    # Of the steps 1, 3, 5 and 7, counted from 0.
    expected = pytest.approx([0.0025, 0.0075, 0.0075, 0.0025])
    workdir = trainer("run", *flags)
    assert [row["learning_rate"] for row in rows(workdir, "train")] == expected
    trainer("resumed", *flags, "--config.checkpoint_steps=3", "--config.total_steps=8")
    resumed = trainer.folder / "resumed"
    for path in resumed.glob("checkpoints/step_*"):
        if path.name != "step_00000003":
            shutil.rmtree(path)
    trainer("resumed", *flags)
    found = rows(resumed, "train")
    assert [row["learning_rate"] for row in found] == expected
    # TensorBoard has the same points, each once; the first block of a run has no speed.
    events = [
        event
        for path in (resumed / "tensorboard").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
    ]
    points = {
        (event.step, value.tag): float(tf.make_ndarray(value.tensor))
        for event in events
        for value in event.summary.value
    }
    assert len(points) == sum(len(event.summary.value) for event in events)
    assert points == {
        (row["step"], f"{row['split']}/{name}"): pytest.approx(value)
        for row in rows(resumed)
        for name, value in row.items()
        if name not in ("step", "split")
    }
    assert ["steps_per_second" in row for row in found] == [False, False, True, True]


WRONG = {
    "loss=hinge": "softmax, sigmoid",
    "label_smoothing=1.0": "label_smoothing",
    "batch_size=0": "batch_size",
    "batch_size=-3": "batch_size",
    "gradient_accumulation_steps=0": "gradient_accumulation_steps",
    "keep_best_metric=acuracy": "accuracy",
    "steps_per_loop=0": "steps_per_loop",
    "seed=-1": "seed",
    "keep_checkpoints=0": "keep_checkpoints",
    "total_steps=0": "at least one step",
    "total_steps=-4": "total_steps",
    "eval_epochs=-1": "eval_epochs",
    "warmup_steps=9": "warm-up",
    "data.source=digit": "Did you mean 'digits'",
    "data.train_split=training": "Did you mean 'train'",
    "data.eval_split=val": "Unknown split 'val'",
    "data.final_split=tset": "Did you mean 'test'",
    "data.normalization=none": "imagenet, unit, zero_one",
    "class_weights=ballanced": "None, balanced, or a number",
    "class_weights=(1.0,-2.0)": "class_weights must be",
    "class_weights=(1.0,2.0)": "class_weights must be 10 numbers",
    "data.mixup_alpha=-1": "mixup_alpha",
    "data.cutmix_alpha=-1": "cutmix_alpha",
    "data.source=folder": "data.data_dir",
    "data.source=tfds:squares": "download_and_prepare",
    "augmentation.crop=middle": "crop",
    "augmentation.random_erasing=2": "augmentation.random_erasing",
    "model.name=vit_z16": "vit_",
    "model.image_size=3": "at least one whole patch",
    "model.token_learner_at=1": r"\[0, 1\)",
    "model.token_learner_at=-1": r"\[0, 1\)",
    "model.classifier=None": "classifier",
    "model.num_frames=4": "image",
    "optimizer.name=adam": "optimizer.name",
    "optimizer.learning_rate=nan": "optimizer.learning_rate",
    "optimizer.weight_decay_mask=none": "weight_decay_mask",
    "optimizer.layer_decay=0": "optimizer.layer_decay",
    "optimizer.freeze=embeding,head": "Did you mean 'embedding'",
    "ema_decay=1.0": "ema_decay",
    "dtype_policy=float16": "dtype_policy",
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_configurations_leave_no_trace(
    trainer: Trainer, tmp_path: Path, override: str
) -> None:
    flags = [f"--config.{override}"]
    if "tfds" in override:
        pytest.importorskip("tensorflow_datasets")
        flags.append(f"--config.data.data_dir={tmp_path}")
    with pytest.raises(ConfigurationError, match=WRONG[override]):
        trainer("wrong", *flags)
    assert not (tmp_path / "wrong").exists()


def test_a_batch_that_the_replicas_cannot_share(trainer: Trainer, tmp_path: Path) -> None:
    flags = ["--strategy=mirrored", "--config.batch_size=31"]
    with pytest.raises(ConfigurationError, match="set batch_size to 30 or 32"):
        trainer("odd", *flags)
    assert not (tmp_path / "odd").exists()


def test_wrong_work_directories(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigurationError, match="is a file"):
        trainer("file")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        trainer("file/below")
    with pytest.raises(ConfigurationError, match="Expected --workdir=DIR"):
        trainer("none", "--workdir=")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"seed": ')
    with pytest.raises(ConfigurationError, match="is damaged"):
        trainer("damaged")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["--strategy=mirrored", "--strategy=one_device"])
def test_tpu_and_strategy_must_agree(trainer: Trainer, name: str) -> None:
    with pytest.raises(ConfigurationError, match="--tpu=local needs"):
        trainer("tpu", name, "--tpu=local")


@pytest.mark.slow
def test_a_training_that_diverges_saves_nothing(trainer: Trainer, tmp_path: Path) -> None:
    flags = ["--config.optimizer.learning_rate=1e38", "--config.checkpoint_steps=2"]
    with pytest.raises(TrainingError, match=r"diverged.*optimizer.learning_rate"):
        trainer("diverged", *flags, "--config.total_steps=8", "--config.log_steps=8")
    for path in (tmp_path / "diverged").glob("checkpoints/step_*/arrays.npz"):
        with np.load(path) as arrays:
            assert all(np.isfinite(arrays[name]).all() for name in arrays.files)


def _write_png(path: Path, channels: int, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = tf.fill((9, 12, channels), tf.constant(value, tf.uint8))
    path.write_bytes(tf.io.encode_png(pixels).numpy())


def _image_folder(folder: Path) -> list[str]:
    """Writes three train images (grey, RGB, RGBA), one a class; returns the flags."""
    for number, channels in enumerate((1, 3, 4)):
        for split in ("train", "val"):
            path = folder / split / f"class{number}" / "one.png"
            _write_png(path, channels, 100 * number)
    return ["--config.data.source=folder", f"--config.data.data_dir={folder}"]


@pytest.mark.slow
def test_few_images_of_all_kinds(trainer: Trainer, tmp_path: Path) -> None:
    flags = _image_folder(tmp_path / "images")
    small = ["--config.batch_size=2", "--config.data.mixup_alpha=0.2"]
    # One example a replica: mixup finds its partner in the global batch.
    workdir = trainer("few", *flags, *small, "--strategy=mirrored")
    (row,) = rows(workdir, "validation")
    assert row["num_examples"] == 3
    # A batch larger than the data set.
    workdir = trainer("large", *flags, "--config.batch_size=8")
    assert np.isfinite(rows(workdir, "train")[-1]["loss"])
    with pytest.raises(ConfigurationError, match="split 'test'"):
        trainer("no_test", *flags, "--config.data.final_split=test")


@pytest.mark.every_backend
@pytest.mark.slow
def test_a_damaged_image_is_named(trainer: Trainer, tmp_path: Path) -> None:
    flags = _image_folder(tmp_path / "images")
    damaged = tmp_path / "images" / "train" / "class1" / "one.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(DataError) as failure:
        trainer("damaged", *flags, "--config.batch_size=2")
    assert str(damaged) in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.slow
def test_a_second_training_in_the_directory_is_refused(trainer: Trainer) -> None:
    workdir = trainer("run", "--config.total_steps=1")
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with workdir_lock(str(workdir)):
        with pytest.raises(ConfigurationError, match="Another training"):
            trainer("run", "--config.total_steps=2")
        del before[workdir / LOCK_FILE]  # the process that holds it stands in it
        assert before == {path: path.read_bytes() for path in before}
    trainer("run", "--config.total_steps=2")
    assert [row["step"] for row in rows(workdir, "train")] == [1, 2]

"""A run that is killed, and started again, ends like one that was not."""

import functools
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers import processes
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from tests.helpers.small_runs import rows
from tests.helpers.video_runs import TRANSFORMER
from tests.helpers.video_runs import video_config
from trainers import checkpoints
from trainers.checkpointing.store import CheckpointStore
from trainers.evaluation.evaluator import Evaluator
from trainers.steps.train_step import TrainStep
from trainers.train import train
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import Interrupted
from trainers.utils.reporting import read_metrics

#: Rows over three steps and checkpoints after two: most kills come in the midst of a row.
FLAGS = [
    "--config.total_steps=10",
    "--config.log_steps=3",
    "--config.checkpoint_steps=2",
    "--config.eval_steps=4",
    "--config.keep_checkpoints=2",
    "--config.keep_best_metric=accuracy",
    "--config.data.final_split=test",
    "--config.model.dropout=0.1",
    "--config.data.mixup_alpha=0.3",
    "--config.ema_decay=0.9",
]
#: Every key for fine-tuning.
FINE_TUNING = [
    "--config.class_weights=balanced",
    "--config.data.cutmix_alpha=1.0",
    "--config.augmentation.random_erasing=0.5",
    "--config.optimizer.layer_decay=0.7",
    "--config.optimizer.weight_decay=0.1",
    "--config.optimizer.freeze=embedding,position_*",
]
#: Steps with one token or two, and what else changes a step.
ELASTIC = [
    "--config.model.elastic_tokens=(1,2)",
    "--config.model.remat=True",
    "--config.dtype_policy=mixed_bfloat16",
    "--config.gradient_accumulation_steps=2",
]
#: What is not a function of the configuration.
TIMES = ("steps_per_second", "images_per_second", "data_wait")


def _without_times(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


_KILLED, _TERMINATED = -signal.SIGKILL, 128 + signal.SIGTERM
#: By engine and kind, where to stop, one run after the other; how it ends, and the newest
#: checkpoint after it.
STOPS = {
    ("tensorflow", "in short"): {"steps:3": (_KILLED, {2, 4})},
    ("tensorflow", "image"): {
        # The arrays of step 4, half written in the background.
        "write:arrays.npz:2": (_KILLED, {2}),
        # In the steps from 4 on, perhaps while the checkpoint of step 4 is being written.
        "steps:3": (_KILLED, {2, 4}),
        # In the second block of steps after that, which is finished.
        "terminate:2": (_TERMINATED, {4, 8}),
        # All is done, but the model is only half there.
        "write:model.keras:1": (_KILLED, {10}),
    },
    ("jax", "image"): {
        # In the steps from 2 to 3, which are finished.
        "terminate:2": (_TERMINATED, {3}),
    },
    ("tensorflow", "video"): {"steps:3": (_KILLED, {2, 4})},
    ("tensorflow", "fine-tuning"): {"steps:3": (_KILLED, {2, 4})},
    ("jax", "fine-tuning"): {"steps:3": (_KILLED, {2, 3, 4})},
    ("tensorflow", "elastic"): {"steps:3": (_KILLED, {2, 4})},
    ("jax", "elastic"): {"terminate:2": (_TERMINATED, {3})},
}
MARKS = {
    ("tensorflow", "in short"): (),
    ("jax", "image"): pytest.mark.extra,
    ("tensorflow", "image"): pytest.mark.extra,
    ("tensorflow", "video"): pytest.mark.extra,
    ("tensorflow", "fine-tuning"): pytest.mark.slow,
    ("jax", "fine-tuning"): pytest.mark.extra,
    ("tensorflow", "elastic"): pytest.mark.slow,
    ("jax", "elastic"): pytest.mark.extra,
}


@pytest.mark.parametrize(
    ("backend", "kind"),
    [pytest.param(*each, marks=MARKS[each]) for each in STOPS],
)
def test_stopped_runs_end_like_one_that_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str, kind: str
) -> None:
    pytest.importorskip(backend)
    start = functools.partial(processes.start, backend=backend)
    config = _video_file(tmp_path) if kind == "video" else config_file(tmp_path)
    flags = [f"--config={config}", "--strategy=one_device", *FLAGS]
    flags += FINE_TUNING if kind == "fine-tuning" else []
    flags += ELASTIC if kind == "elastic" else []
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    values = parse(*flags, f"--workdir={whole}")
    if backend == keras.backend.backend():
        train(values.config, whole, strategy="one_device")
    else:
        never_killed = start("trainers.train", *flags, f"--workdir={whole}")
        assert never_killed.wait(processes.PATIENCE) == 0
    for point, (status, newest) in STOPS[backend, kind].items():
        process = start("tests.helpers.killed_training", point, *flags, f"--workdir={killed}")
        _, errors = process.communicate(timeout=processes.PATIENCE)
        assert process.returncode == status, errors
        assert "Traceback" not in errors
        listed = _listed(killed, capsys)
        assert all(line.split()[1] == "ok" for line in listed)
        step = int(listed[-1].split()[0])
        assert step in newest
        if status == _TERMINATED:
            assert f"error: stopped by signal 15 at step {step}" in errors
        assert not (killed / "model.keras").exists()
    if backend == keras.backend.backend():
        capsys.readouterr()
        train(values.config, killed, strategy="one_device")
        output = capsys.readouterr().out
    else:
        process = start("trainers.train", *flags, f"--workdir={killed}")
        output, errors = process.communicate(timeout=processes.PATIENCE)
        assert process.returncode == 0, errors
    assert f"resuming at step {step}" in output
    assert _listed(killed, capsys) == _listed(whole, capsys)
    assert _without_times(rows(killed)) == _without_times(rows(whole))
    assert [row["step"] for row in rows(killed, "train")] == [3, 6, 9, 10]
    models = [keras.saving.load_model(path / "model.keras") for path in (killed, whole)]
    for left, right in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(left, right)
    # Also of what the training has frozen.
    assert len(models[0].trainable_weights) == len(models[0].weights)
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}


def _listed(workdir: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Returns what the command that lists checkpoints prints."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(checkpoints, "FLAGS", SimpleNamespace(workdir=str(workdir)))
        checkpoints.main()
    return capsys.readouterr().out.splitlines()


def _video_file(folder: Path) -> Path:
    path = folder / "video.py"
    path.write_text(video_config(folder, TRANSFORMER, multi_label=False))
    return path


class _Signals:
    """Sends a signal to this process at the first call of a method in its second round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type, method: str) -> None:
        self.calls = 0
        original = getattr(kind, method)

        def call(instance: Any, *arguments: Any) -> Any:
            self.calls += 1
            if self.calls == 2:
                signal.raise_signal(self.number)
            return original(instance, *arguments)

        self.number = signal.SIGTERM
        monkeypatch.setattr(kind, method, call)


@pytest.mark.parametrize(
    ("number", "place", "step"),
    [
        pytest.param(signal.SIGTERM, (TrainStep, "run"), 3, marks=pytest.mark.every_backend),
        pytest.param(signal.SIGINT, (Evaluator, "evaluate"), 8, marks=pytest.mark.slow),
        # Step 4 is being saved already: the next block ends at 6.
        pytest.param(signal.SIGTERM, (CheckpointStore, "save"), 6, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_once(
    trainer: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    place: tuple[type, str],
    step: int,
) -> None:
    saved = []
    write = CheckpointStore._write

    def spy(self: CheckpointStore, each: int, *arguments: Any) -> None:
        saved.append(each)
        write(self, each, *arguments)

    monkeypatch.setattr(CheckpointStore, "_write", spy)
    with monkeypatch.context() as patch:
        _Signals(patch, *place).number = number
        with pytest.raises(Interrupted, match="the same command resumes") as stopped:
            trainer("stopped", *FLAGS)
    assert stopped.value.signal_number == number
    # It is on the disk when the process leaves, and no step was saved twice.
    assert saved == sorted({*saved}) and saved[-1] == step
    assert checkpoint_arrays(tmp_path / "stopped", step)["random/step"] == step
    assert rows(tmp_path / "stopped")[-1]["step"] <= step


@pytest.mark.slow
def test_a_run_on_another_file_system(trainer: Trainer, tmp_path: Path) -> None:
    remote = f"ram://{tmp_path.name}/run"
    flags = [*FLAGS, f"--workdir={remote}"]
    trainer("unused", *flags, "--config.total_steps=5")
    # What a kill has left: arrays without their manifest, and a row too many.
    checkpoints = files.join(remote, "checkpoints")
    files.remove(files.join(checkpoints, "step_00000005", "manifest.json"))
    files.append(files.join(remote, "metrics.jsonl"), b'{"step": 5, "split": "tr')
    trainer("unused", *flags)
    local = trainer("local", *FLAGS)
    assert not (tmp_path / "unused").exists()

    store = CheckpointStore(checkpoints, 9)
    assert store.steps()[-2:] == [8, 10]
    assert_same_arrays(store.load(10), checkpoint_arrays(local, 10))
    found = read_metrics(files.join(remote, "metrics.jsonl"))
    assert _without_times(found) == _without_times(rows(local))
    names = {"checkpoints", "config.json", "metrics.jsonl", "model.keras", "tensorboard"}
    assert set(files.list_names(remote)) == names
    payload = files.read(files.join(remote, "model.keras"))
    (tmp_path / "copy.keras").write_bytes(payload)
    assert keras.saving.load_model(tmp_path / "copy.keras").count_params() > 0


def test_an_unknown_best_metric_leaves_no_trace(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="keep_best_metric must .* Received: 'acuracy'"):
        trainer("wrong", "--config.keep_best_metric=acuracy")
    assert not (tmp_path / "wrong").exists()

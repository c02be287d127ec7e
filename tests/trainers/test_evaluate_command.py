"""The command that evaluates a checkpoint, inside this process and as one."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.helpers.processes import PATIENCE
from tests.helpers.processes import ROOT
from tests.helpers.processes import start
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import engine_of
from tests.helpers.small_runs import rows
from tests.helpers.small_runs import run_command
from tokenlearner_keras import resize_model
from trainers import evaluate
from trainers.checkpointing import store
from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.checkpoint_file import read_checkpoint
from trainers.checkpointing.checkpoint_file import remove_checkpoint
from trainers.checkpointing.checkpoint_file import write_checkpoint
from trainers.checkpointing.workdir import read_configuration
from trainers.data.datasets.digits import digits_source
from trainers.experiment import make_evaluator
from trainers.experiment import make_preprocessing
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.reporting import format_metrics

Evaluate = Callable[..., Path]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, workdir: Path, tmp_path: Path) -> Evaluate:
    """Runs the command; returns where its report is, if it was asked for."""

    def run(*arguments: str, replicas: int = 1) -> Path:
        run_command(
            monkeypatch,
            evaluate,
            f"--workdir={workdir}",
            *arguments,
            make_engine=lambda *_, **__: engine_of(replicas),
        )
        return tmp_path / "report.json"

    return run


def _sets(path: Path) -> dict[str, dict[str, Any]]:
    return json.loads(path.read_text())["sets"]


def _row(workdir: Path, split: str, step: int) -> dict[str, Any]:
    (row,) = [row for row in rows(workdir, split) if row["step"] == step]
    return {name: value for name, value in row.items() if name not in ("step", "split")}


@pytest.mark.every_backend
def test_training_writes_a_row_for_each_set(workdir: Path) -> None:
    for split, count in {"validation": 269, "held_out": 270}.items():
        found = rows(workdir, split)
        assert [row["step"] for row in found] == [2, 4]
        for row in found:
            assert {"accuracy", "loss"} <= row.keys() and row["num_examples"] == count


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_it_finds_what_the_training_wrote(
    command: Evaluate,
    workdir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    before = sorted(path for path in workdir.rglob("*"))
    # The last step is the newest checkpoint, which is the one without a flag.
    which = [] if step == 4 else [f"--checkpoint={step}"]
    report = command(*which, f"--report={tmp_path / 'report.json'}")
    capsys.readouterr()
    sets = _sets(report)
    assert list(sets) == ["validation", "held_out"]
    for name, values in sets.items():
        assert values["metrics"] == _row(workdir, name, step)
    command(*which)
    lines = capsys.readouterr().out.splitlines()
    for name in sets:
        assert f"{name}: {format_metrics(_row(workdir, name, step))}" in lines
    assert sorted(path for path in workdir.rglob("*")) == before


@pytest.mark.parametrize(
    ("batch_size", "replicas"),
    [(7, 1), *(pytest.param(*each, marks=pytest.mark.slow) for each in [(300, 1), (10, 2)])],
)
def test_batch_size_and_replicas_do_not_matter(
    command: Evaluate, workdir: Path, tmp_path: Path, batch_size: int, replicas: int
) -> None:
    flag = f"--report={tmp_path / 'report.json'}"
    sets = _sets(command(f"--batch_size={batch_size}", flag, replicas=replicas))
    for name, values in sets.items():
        row = _row(workdir, name, 4)
        assert values["metrics"]["num_examples"] == row["num_examples"]
        assert values["metrics"] == pytest.approx(row, abs=1e-6)


def test_images_of_another_size(command: Evaluate, workdir: Path, tmp_path: Path) -> None:
    flag = f"--report={tmp_path / 'report.json'}"
    (values,) = _sets(command("--image_size=12", "--split=test", flag)).values()
    # The finished model holds the moving averages.
    model = resize_model(keras.saving.load_model(workdir / "model.keras"), 12)
    config, model_config = read_configuration(str(workdir))
    preprocessing = make_preprocessing(config, dataclasses.replace(model_config, image_size=12))
    evaluator = make_evaluator(config, model, None, engine_of(1), preprocessing)
    assert values["metrics"] == pytest.approx(evaluator.evaluate(digits_source("test")), abs=1e-6)
    assert abs(values["metrics"]["loss"] - _row(workdir, "held_out", 4)["loss"]) > 1e-4


@pytest.mark.every_backend
def test_averages_and_raw_weights(command: Evaluate, workdir: Path, tmp_path: Path) -> None:
    flag = f"--report={tmp_path / 'report.json'}"
    losses = {}
    for weights in ("ema", "raw"):
        report = json.loads(command(f"--weights={weights}", flag).read_text())
        assert report["weights"] == weights and report["step"] == 4
        losses[weights] = report["sets"]["validation"]["metrics"]["loss"]
    assert losses["ema"] == _row(workdir, "validation", 4)["loss"]
    assert abs(losses["ema"] - losses["raw"]) > 1e-4


def test_the_report_adds_up(command: Evaluate, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    flag = f"--report={tmp_path / 'report.json'}"
    (values,) = _sets(command("--split=test", flag)).values()
    matrix, metrics = values["confusion_matrix"], values["metrics"]
    assert sum(map(sum, matrix)) == metrics["num_examples"] == 270
    right = sum(matrix[label][label] for label in range(10))
    assert right / 270 == pytest.approx(metrics["accuracy"])
    assert len(values["classes"]) == len(values["class_names"]) == 10
    for label, results in enumerate(values["classes"].values()):
        assert results["support"] == sum(matrix[label])
        if results["support"]:
            assert results["recall"] == pytest.approx(matrix[label][label] / results["support"])
    recall = [results["recall"] for results in values["classes"].values() if results["support"]]
    assert sum(recall) / len(recall) == pytest.approx(metrics["mean_class_accuracy"])


def test_sets_by_flag(command: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    command("--eval_sets=test,all=digits:train")
    lines = [line for line in capsys.readouterr().out.splitlines() if "examples" in line]
    assert [line.split(":")[0] for line in lines] == ["test", "all"]
    assert lines[1].endswith("num examples 1258")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint=3"], "no checkpoint of step 3. It has: 2, 4"),
        (["--split=tset"], "Did you mean 'test'"),
        (["--split=test", "--eval_sets=test"], "one of --split and --eval_sets"),
        (["--eval_sets=digit:test"], "Did you mean 'digits'"),
        (["--eval_sets=test,test"], "different names"),
        (["--batch_size=0"], "--batch_size"),
        (["--image_size=0"], "--image_size=0: .*image_size"),
        (["--image_size=3"], "--image_size=3: .*one whole patch"),
        (["--workdir="], "Received none"),
        (["--workdir=nowhere"], "no config.json"),
        (["--report=."], "is a directory"),
    ],
)
def test_wrong_usage(command: Evaluate, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        command(*arguments)


def test_a_batch_that_the_replicas_cannot_share(command: Evaluate) -> None:
    with pytest.raises(ConfigurationError, match="set batch_size to 30 or 32"):
        command("--batch_size=31", replicas=2)


@pytest.mark.slow
def test_a_damaged_checkpoint(
    command: Evaluate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workdir = Trainer(monkeypatch, tmp_path)("plain", "--config.total_steps=1")
    with pytest.raises(ConfigurationError, match="--weights=ema needs"):
        command(f"--workdir={workdir}", "--weights=ema")
    (workdir / "checkpoints" / "step_00000001" / "arrays.npz").write_bytes(b"\n")
    with pytest.raises(DataError, match="is damaged"):
        command(f"--workdir={workdir}", "--checkpoint=1")
    with pytest.raises(ConfigurationError, match="a valid checkpoint"):
        command(f"--workdir={workdir}")
    (workdir / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is damaged"):
        command(f"--workdir={workdir}")


def test_other_classes_are_refused(command: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "test" / "only").mkdir(parents=True)
    (tmp_path / "train" / "only").mkdir(parents=True)
    with pytest.raises(ConfigurationError):
        command(f"--eval_sets=folder:test@{tmp_path}")


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch, workdir: Path, tmp_path: Path) -> Callable[[int], Path]:
    """A run that is still training: it saves steps 6, 8, ... and keeps only the last.

    Called with a number, it has done so before each of so many readings of a checkpoint.
    """

    def train_on(times: int) -> Path:
        copy = tmp_path / "moving"
        shutil.copytree(workdir, copy)
        checkpoints = str(copy / "checkpoints")
        arrays = read_checkpoint(checkpoints, 4)
        saved = [4]

        def read(directory: str, step: int) -> Arrays:
            if len(saved) <= times:
                saved.append(saved[-1] + 2)
                write_checkpoint(checkpoints, saved[-1], arrays)
                for old in (2, saved[-2]):
                    remove_checkpoint(checkpoints, old)
            return read_checkpoint(directory, step)

        monkeypatch.setattr(store, "read_checkpoint", read)
        return copy

    return train_on


@pytest.mark.parametrize("times", [1, 3])
def test_a_checkpoint_that_goes_while_it_is_read(
    command: Evaluate,
    moving: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
    times: int,
) -> None:
    command(f"--workdir={moving(times)}")
    output, errors = capsys.readouterr()
    # It is as good as the one before, and nothing was damaged.
    assert f"step {4 + 2 * times}, moving averages" in output
    assert "damaged" not in errors


def test_the_checkpoint_asked_for_goes(command: Evaluate, moving: Callable[[int], Path]) -> None:
    with pytest.raises(ConfigurationError, match="no checkpoint of step 4. It has: 6"):
        command(f"--workdir={moving(1)}", "--checkpoint=4")


@pytest.mark.extra
def test_while_a_training_writes_and_removes(
    command: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = tmp_path / "live"
    fixed = [f"--config={config_file(tmp_path)}", f"--workdir={live}", "--strategy=one_device"]
    often = ["--config.checkpoint_steps=1", "--config.keep_checkpoints=1"]
    training = start("trainers.train", *fixed, *often, "--config.total_steps=1000000")
    try:
        while not list(live.glob("checkpoints/step_*")):
            assert training.poll() is None
            time.sleep(0.1)
        for _ in range(5):
            command(f"--workdir={live}", "--split=test")
        output, errors = capsys.readouterr()
        steps = [int(step) for step in re.findall(r"step (\d+), weights", output)]
        # Each time the newest one.
        assert len(steps) == 5 and steps == sorted(steps)
        assert output.count("num examples 270") == 5
        assert "damaged" not in errors
        training.send_signal(signal.SIGTERM)
        _, errors = training.communicate(timeout=PATIENCE)
        assert training.returncode == 128 + signal.SIGTERM, errors
    finally:
        training.kill()
        training.communicate()


@pytest.mark.extra
def test_as_a_process(workdir: Path) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "trainers.evaluate", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run(f"--workdir={workdir}", "--split=test", "--virtual_devices=4")
    assert done.returncode == 0, done.stderr
    assert "4 replicas" in done.stdout and "num examples 270" in done.stdout
    wrong = run(f"--workdir={workdir}", "--checkpoint=9")
    assert wrong.returncode == 2 and not wrong.stdout
    (line,) = [line for line in wrong.stderr.splitlines() if line.startswith("error: ")]
    assert "It has: 2, 4" in line and "Traceback" not in wrong.stderr

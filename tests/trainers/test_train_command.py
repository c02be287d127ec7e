"""The trainer as a process: exit statuses, signals, and what a run leaves behind."""

import json
import signal
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

import tokenlearner_keras  # noqa: F401  (registers the layers of saved models)
from tests.helpers.processes import PATIENCE
from tests.helpers.processes import start
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import rows
from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.datasets.digits import digits_source
from trainers.data.pipeline import evaluation_dataset
from trainers.data.preprocessing.normalization import normalize

DIGITS = "trainers/configs/digits.py"


def _start(*arguments: str) -> subprocess.Popen[str]:
    return start("trainers.train", *arguments)


def _run(*arguments: str) -> tuple[int, str, str]:
    process = _start(*arguments)
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors


def _error_lines(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("error: ")]


def test_wrong_flags_leave_with_status_2() -> None:
    status, output, errors = _run("--config", DIGITS, "--workdir=unused", "--workdirr=x")
    assert status == 2 and not output
    assert len(_error_lines(errors)) == 1
    assert "Did you mean" in errors and "Traceback" not in errors


@pytest.mark.slow
def test_help_needs_no_configuration() -> None:
    status, output, errors = _run("--helpfull")
    assert status == 0
    assert "--workdir" in output and "--virtual_devices" in output
    assert "--config.optimizer.learning_rate" in output
    assert "Traceback" not in errors


@pytest.mark.extra
def test_digits_are_learned(tmp_path: Path) -> None:
    workdir = tmp_path / "digits"
    status, output, errors = _run(
        f"--config={DIGITS}",
        f"--workdir={workdir}",
        "--config.total_epochs=12",
        "--config.ema_decay=0.9",
    )
    assert status == 0, errors
    assert "INFO" not in errors
    (test_row,) = rows(workdir, "test")
    assert test_row["accuracy"] > 0.5  # chance is 0.1
    assert test_row["num_examples"] == 270
    assert f"accuracy {test_row['accuracy']:.4g}" in output
    evaluation = rows(workdir, "validation")[-1]
    assert {"step", "split", "accuracy", "loss", "num_examples"} <= evaluation.keys()
    train = rows(workdir, "train")
    assert train[-1]["step"] == evaluation["step"] and train[-1]["loss"] < train[0]["loss"]
    assert list((workdir / "tensorboard").glob("events*"))
    assert list((workdir / "checkpoints").glob("step_*/manifest.json"))

    model = keras.saving.load_model(workdir / "model.keras")
    source = digits_source("validation")
    augmentation = json.loads((workdir / "config.json").read_text())["augmentation"]
    preprocessing = PreprocessingConfig((16, 16), **augmentation)
    right = 0
    for batch in evaluation_dataset(source, preprocessing, batch_size=64):
        logits = model.predict_on_batch(normalize(batch["image"], "unit"))
        hits = logits.argmax(axis=1) == batch["label"].numpy()
        right += int((hits * batch["mask"].numpy()).sum())
    assert right / source.num_examples == pytest.approx(evaluation["accuracy"])


@pytest.mark.slow
def test_sigint_before_the_first_step_ends_at_once(tmp_path: Path) -> None:
    process = _start(f"--config={config_file(tmp_path)}", f"--workdir={tmp_path / 'run'}")
    assert process.stdout is not None
    process.stdout.readline()  # the devices: the program has begun
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGINT
    assert len(_error_lines(errors)) == 1 and "Traceback" not in errors


@pytest.mark.extra
def test_four_virtual_devices_end_with_the_same_weights(tmp_path: Path) -> None:
    flags = [f"--config={config_file(tmp_path)}", "--config.total_steps=5"]
    flags += ["--config.optimizer.global_clipnorm=0.3", "--config.steps_per_loop=2"]
    # Rounding is all that there is in the gradient of some biases: no steps of it.
    flags += ["--config.optimizer.epsilon=1e-5"]
    ends = []
    for count in (1, 4):
        workdir = tmp_path / str(count)
        status, output, errors = _run(*flags, f"--workdir={workdir}", f"--virtual_devices={count}")
        assert status == 0, errors
        assert f"{count} replica" in output and "INFO" not in errors
        ends.append(checkpoint_arrays(workdir, 5))
        assert min(row["gradient_norm"] for row in rows(workdir, "train")) > 0.3
    for name, value in ends[0].items():
        np.testing.assert_allclose(ends[1][name], value, atol=1e-5, err_msg=name)

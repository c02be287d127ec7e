"""The same training on both engines: losses, weights, and each other's checkpoints.

The engines draw initial weights differently, so both start from the same file.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers.processes import ROOT
from tests.helpers.small_runs import TINY_MODEL
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from tests.helpers.small_runs import rows
from tokenlearner_keras import create_model
from trainers.train import train

pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX beside TensorFlow")

ENGINES = ("tensorflow", "jax")
STEPS = 30


def _run(module: str, engine: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, f"--engine={engine}", *flags],
        cwd=ROOT,
        # The flag decides, whatever the environment says.
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


#: Every key for fine-tuning, on both engines.
FINE_TUNING = (
    "--config.class_weights=balanced",
    "--config.data.cutmix_alpha=1.0",
    "--config.augmentation.random_erasing=0.25",
    "--config.optimizer.layer_decay=0.8",
    "--config.optimizer.freeze=position_embedding",
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((), id="plain"),
        pytest.param(FINE_TUNING, id="fine_tuning", marks=pytest.mark.slow),
    ],
)
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The work directories of the two engines' trainings, without warm-up and dropout."""
    folder = tmp_path_factory.mktemp("engines")
    keras.utils.set_random_seed(3)
    initial = folder / "initial.keras"
    create_model(TINY_MODEL["name"], 10, 8, width=16, num_heads=2, mlp_dim=32).save(initial)
    flags = [
        f"--config={config_file(folder)}",
        f"--config.init_from={initial}",
        f"--config.total_steps={STEPS}",
        f"--config.eval_steps={STEPS}",
        "--config.ema_decay=0.9",
        "--config.data.mixup_alpha=0.2",
        "--config.label_smoothing=0.1",
        "--config.optimizer.weight_decay=0.05",
        "--config.optimizer.global_clipnorm=0.5",
        # Some biases have a gradient of zero, but for rounding; a small epsilon would make
        # steps of that.
        "--config.optimizer.epsilon=1e-5",
        *request.param,
    ]
    workdirs = {engine: folder / engine for engine in ENGINES}
    for engine, workdir in workdirs.items():
        if engine == keras.backend.backend():
            train(parse(*flags).config, workdir, engine=engine, strategy="one_device")
            continue
        output = _run("trainers.train", engine, f"--workdir={workdir}", *flags)
        assert output.startswith("JAX" if engine == "jax" else "OneDeviceStrategy"), output
    return workdirs


def test_losses_agree_and_fall(runs: dict[str, Path]) -> None:
    found, expected = ([row["loss"] for row in rows(runs[e], "train")] for e in ENGINES)
    assert len(expected) == STEPS
    assert expected[-1] < 0.9 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for name in ("gradient_norm", "accuracy", "learning_rate"):
        found, expected = ([row[name] for row in rows(runs[e], "train")] for e in ENGINES)
        np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=name)


def test_final_weights_agree(runs: dict[str, Path]) -> None:
    found, expected = (checkpoint_arrays(runs[engine], STEPS) for engine in ENGINES)
    first = keras.saving.load_model(runs["jax"].parent / "initial.keras", compile=False)
    moved = {f"model/{variable.path}": variable.numpy() for variable in first.variables}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.startswith(("model/", "optimizer/")):
            np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=0, err_msg=name)
    kernels = [name for name in moved if name.endswith("kernel") and name in expected]
    assert kernels and all(np.abs(expected[n] - moved[n]).max() > 0.01 for n in kernels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "other"),
    [("tensorflow", "jax"), pytest.param("jax", "tensorflow", marks=pytest.mark.extra)],
)
def test_a_checkpoint_of_one_is_evaluated_by_the_other(
    runs: dict[str, Path], engine: str, other: str
) -> None:
    flags = [f"--workdir={runs[other]}", f"--checkpoint={STEPS}"]
    found = _numbers(_run("trainers.evaluate", engine, *flags))
    (row,) = rows(runs[other], "validation")
    assert found["num examples"] == row["num_examples"] == 269
    assert found["loss"] == pytest.approx(row["loss"], rel=1e-3)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=1e-4)


def _numbers(output: str) -> dict[str, float]:
    (line,) = [line for line in output.splitlines() if line.startswith("validation: ")]
    pairs = re.findall(r"([a-z0-9 ]+?) ([\d.e+-]+)(?:, |$)", line.removeprefix("validation: "))
    return {name.strip(): float(value) for name, value in pairs}

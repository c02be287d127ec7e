"""Which engine a command runs on, by its flags and the environment."""

import os
import subprocess
import sys

import keras
import pytest
from absl import flags

import trainers
from tests.trainers.backends import ON_JAX
from tests.trainers.backends import only_on_jax
from tests.trainers.backends import only_on_tensorflow
from tests.trainers.processes import ROOT
from trainers.engines import choice
from trainers.errors import ConfigurationError

HERE, OTHER = ("jax", "tensorflow") if ON_JAX else ("tensorflow", "jax")


def _values(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    choice.define_flags(values)
    values(["command", *arguments])
    return values


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["python", "-m", "trainers.train", "--engine=jax"], "jax"),
        (["python", "-m", "trainers.train", "--engine", "jax"], "jax"),
        (["python", "-m", "trainers.train", "-engine=jax", "--workdir=run"], "jax"),
        (["python", "-X", "dev", "-m", "trainers.evaluate", "--a=b", "--engine=torch"], "torch"),
        (["python", "-m", "trainers.train", "--workdir=run"], None),
        (["python", "-m", "trainers.train", "--engine"], ""),
        (["python", "-m", "trainers.train", "--engines=jax"], None),
        (["python", "-m", "trainers.train", "--note", "engine=jax"], None),
        (["python", "-m", "pytest", "--engine=jax"], None),
        (["python", "-m", "trainers_of_others", "--engine=jax"], None),
        (["python", "train.py", "--engine=jax"], None),
        (["python", "-c", "import trainers", "--engine=jax"], None),
        (["python", "-m"], None),
        (["python"], None),
    ],
)
def test_the_flag_is_read_before_keras_is_imported(
    arguments: list[str], expected: str | None
) -> None:
    assert trainers._engine_flag(arguments) == expected


@pytest.mark.slow
def test_a_command_takes_the_flag_and_a_wrong_one_is_refused() -> None:
    pytest.importorskip("jax")
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trainers.train", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    config = "--config=trainers/configs/digits.py"
    # It comes to its own refusal only if Keras is on JAX.
    refused = run(config, "--workdir=run", "--engine=jax", "--virtual_devices=3", "--model_axis=2")
    assert refused.returncode == 2, refused.stderr
    assert "--model_axis must divide the number of devices, 3" in refused.stderr
    wrong = run(config, "--workdir=run", "--engine=torch")
    assert wrong.returncode == 2 and "torch" in wrong.stderr
    assert "Traceback" not in refused.stderr + wrong.stderr


def test_the_backend_of_this_process() -> None:
    assert choice.check_backend() == choice.check_backend(HERE) == HERE
    assert choice.make_local_engine().name == HERE
    assert choice.make_local_engine().num_replicas == 1


def test_an_engine_that_keras_is_not_on() -> None:
    message = f"--engine={OTHER} needs Keras .* it is on {HERE} .* Set KERAS_BACKEND={OTHER}"
    with pytest.raises(ConfigurationError, match=message):
        choice.make_engine(_values(f"--engine={OTHER}"))


def test_a_backend_that_the_trainer_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    for engine in (None, "jax"):
        with pytest.raises(ConfigurationError, match="Received KERAS_BACKEND=torch. Unset it"):
            choice.check_backend(engine)


@only_on_tensorflow("on JAX they are what devices are arranged by")
@pytest.mark.parametrize("flag", ["--model_axis=2", "--model_axis=0", "--batch_axis=1"])
def test_axes_under_tensorflow(flag: str) -> None:
    with pytest.raises(ConfigurationError, match="are for --engine=jax; .* Leave them out"):
        choice.make_engine(_values(flag))


@only_on_jax("under TensorFlow every replica has all weights")
@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ([], (8, 1)),
        (["--engine=jax", "--model_axis=4"], (2, 4)),
        (["--batch_axis=4", "--model_axis=2", "--strategy=mirrored"], (4, 2)),
        (["--strategy=one_device"], (1, 1)),
    ],
)
def test_axes_under_jax(arguments: list[str], shape: tuple[int, int]) -> None:
    engine = choice.make_engine(_values(*arguments))
    assert engine.layout.mesh.devices.shape == shape
    assert engine.num_replicas == shape[0] * shape[1]


@only_on_jax("its refusal")
def test_axes_that_do_not_divide_the_devices() -> None:
    with pytest.raises(ConfigurationError, match="--model_axis must divide .* 8. Received: 3"):
        choice.make_engine(_values("--model_axis=3"))


def test_what_needs_graphs_of_tensorflow() -> None:
    if ON_JAX:
        with pytest.raises(ConfigurationError, match="Received KERAS_BACKEND=jax. Unset it"):
            choice.check_tensorflow("export")
    else:
        choice.check_tensorflow("export")

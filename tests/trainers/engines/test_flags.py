"""Which engine a command runs on, by its flags and the environment."""

import os
import re
import subprocess
import sys

import keras
import pytest
from absl import flags

from tests.helpers.backends import ON_JAX
from tests.helpers.backends import only_on_jax
from tests.helpers.backends import only_on_tensorflow
from tests.helpers.processes import ROOT
from trainers.engines import flags as choice
from trainers.engines.engine import Engine
from trainers.utils import process
from trainers.utils.errors import ConfigurationError

HERE, OTHER = ("jax", "tensorflow") if ON_JAX else ("tensorflow", "jax")


def _values(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    choice.define_flags(values)
    values(["command", *arguments])
    return values


def _engine(*arguments: str) -> Engine:
    return choice.make_engine(**choice.engine_arguments(_values(*arguments)))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--engine=jax"], "jax"),
        (["--engine", "jax"], "jax"),
        (["-engine=jax", "--workdir=run"], "jax"),
        (["--a=b", "--engine=torch"], "torch"),
        # As absl has it: the last one counts.
        (["--engine=jax", "--workdir=run", "--engine=tensorflow"], "tensorflow"),
        (["--workdir=run"], None),
        (["--engine"], ""),
        (["--engines=jax"], None),
        (["--note", "engine=jax"], None),
        ([], None),
    ],
)
def test_the_flag_is_read_before_keras_is_imported(
    arguments: list[str], expected: str | None
) -> None:
    assert process.engine_flag(arguments) == expected


@pytest.mark.parametrize(
    ("argv", "before", "expected"),
    [
        (["-m", "--engine=jax"], "tensorflow", "jax"),
        (["-m", "--engine=other"], "jax", "jax"),
        (["/venv/bin/tokenlearner-train", "--engine=jax"], None, "jax"),
        (["-m"], None, "tensorflow"),
        # Another program, whose flags are its own.
        (["/usr/bin/pytest", "--engine=jax"], None, "tensorflow"),
        (["-c", "--engine=jax"], "torch", "torch"),
        ([], None, "tensorflow"),
    ],
)
def test_only_a_command_of_ours_decides_by_its_flag(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], before: str | None, expected: str
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if before:
        monkeypatch.setenv("KERAS_BACKEND", before)
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: name)
    process.choose_backend(argv)
    assert os.environ["KERAS_BACKEND"] == expected


@pytest.mark.parametrize(
    ("keras_backend", "missing", "message"),
    [
        ("jax", "jax", r"needs JAX, which is not installed. .*'\.\[jax\]'"),
        ("jax", "tensorflow", r"TensorFlow is not installed. .*tensorflow-cpu,train"),
        ("tensorflow", "tensorflow", r"TensorFlow is not installed"),
        ("torch", "torch", r"backends tensorflow and jax. Received KERAS_BACKEND=torch"),
    ],
)
def test_missing_packages_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    keras_backend: str,
    missing: str,
    message: str,
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", keras_backend)
    monkeypatch.setattr(
        process.importlib.util, "find_spec", lambda name: None if name == missing else name
    )
    with pytest.raises(SystemExit) as end:
        process.choose_backend(["-m", "--workdir=run"])
    assert end.value.code == 2
    assert re.match(f"error: .*{message}.*\n$", capsys.readouterr().err)


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
    assert "--model_axis must be one of 1, 3" in refused.stderr
    wrong = run(config, "--workdir=run", "--engine=torch")
    assert wrong.returncode == 2 and "torch" in wrong.stderr
    assert "Traceback" not in refused.stderr + wrong.stderr


@pytest.mark.every_backend
def test_the_backend_of_this_process() -> None:
    assert choice.check_backend() == choice.check_backend(HERE) == HERE
    assert choice.make_local_engine().name == HERE
    assert choice.make_local_engine().num_replicas == 1


@pytest.mark.every_backend
def test_an_engine_that_keras_is_not_on() -> None:
    message = f"--engine={OTHER} needs Keras .* it is on {HERE} .* Set KERAS_BACKEND={OTHER}"
    with pytest.raises(ConfigurationError, match=message):
        _engine(f"--engine={OTHER}")


def test_a_backend_that_the_trainer_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    for engine in (None, "jax"):
        with pytest.raises(ConfigurationError, match="Received KERAS_BACKEND=torch. Unset it"):
            choice.check_backend(engine)


@only_on_tensorflow("on JAX they are what devices are arranged by")
@pytest.mark.parametrize("flag", ["--model_axis=2", "--model_axis=0", "--batch_axis=1"])
def test_axes_under_tensorflow(flag: str) -> None:
    with pytest.raises(ConfigurationError, match="are for --engine=jax; .* Leave them out"):
        _engine(flag)


@pytest.mark.every_backend
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
    engine = _engine(*arguments)
    assert engine.layout.mesh.devices.shape == shape
    assert engine.num_replicas == shape[0] * shape[1]


@pytest.mark.every_backend
@only_on_jax("its refusal")
def test_axes_that_do_not_divide_the_devices() -> None:
    with pytest.raises(ConfigurationError, match="--model_axis must be one of .* Received: 3"):
        _engine("--model_axis=3")


def test_what_needs_graphs_of_tensorflow() -> None:
    if ON_JAX:
        with pytest.raises(ConfigurationError, match="Received KERAS_BACKEND=jax. Unset it"):
            choice.check_tensorflow("export")
    else:
        choice.check_tensorflow("export")

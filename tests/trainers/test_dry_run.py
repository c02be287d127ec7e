"""A dry run: what it finds, and that it leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from tests.trainers.small_runs import TINY_CONFIG
from tests.trainers.small_runs import Trainer
from tests.trainers.small_runs import config_file
from trainers.errors import ConfigurationError
from trainers.step_memory import compiled_memory

ROOT = Path(__file__).resolve().parents[2]
MEMORY = "memory of a replica's {} step: "


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    keras.backend.clear_session()
    return Trainer(monkeypatch, tmp_path)


def test_memory_is_what_the_shapes_need() -> None:
    weights = tf.Variable(tf.zeros((256, 512)))

    def step(inputs: tf.Tensor) -> tf.Tensor:
        hidden = tf.nn.relu(inputs @ weights)  # (64, 512)
        return tf.reduce_sum(tf.sort(hidden, axis=0) * hidden)

    memory = compiled_memory(step, tf.TensorSpec((64, 256)))
    assert memory is not None
    assert memory.arguments == 4 * (256 * 512 + 64 * 256)
    assert memory.temporaries >= 4 * 64 * 512
    assert 4 <= memory.results < 1000
    parts = (memory.arguments, memory.results, memory.temporaries, memory.constants)
    assert memory.total == sum(parts)
    larger = compiled_memory(step, tf.TensorSpec((128, 256)))
    assert larger is not None and larger.temporaries > 1.8 * memory.temporaries


def test_what_is_not_compiled_has_no_memory() -> None:
    def step(text: tf.Tensor) -> tf.Tensor:
        return tf.strings.length(text)

    assert compiled_memory(step, tf.TensorSpec((), tf.string)) is None


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_it_runs_both_steps_and_writes_nothing(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    flags = ["--dry_run", f"--strategy={strategy}", "--config.data.final_split=test"]
    trainer("run", *flags, "--config.data.eval_sets=('t=digits:train',)")
    output = capsys.readouterr().out
    assert "one training step: loss 2." in output
    for name in ("validation", "t", "test"):
        # One batch and no more.
        assert f"one batch of {name}: accuracy" in output
    assert output.count("num examples 32") == 3
    for name in ("training", "evaluation"):
        (line,) = [line for line in output.splitlines() if line.startswith(MEMORY.format(name))]
        assert "as compiled by XLA" in line
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.py"]


@pytest.mark.slow
def test_a_run_that_is_there_stays_as_it_is(trainer: Trainer, tmp_path: Path) -> None:
    workdir = trainer("run", "--config.total_steps=1")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    trainer("run", "--config.total_steps=2", "--dry_run")
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before
    with pytest.raises(ConfigurationError, match="another configuration"):
        trainer("run", "--config.seed=1", "--dry_run")


def test_an_indivisible_batch(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set batch_size to 30 or 32"):
        trainer("run", "--dry_run", "--strategy=mirrored", "--config.batch_size=31")
    assert not (tmp_path / "run").exists()


def _images(folder: Path) -> None:
    for number in range(3):
        pixels = tf.fill((9, 12, 3), tf.constant(100 * number, tf.uint8))
        for split in ("train", "val"):
            path = folder / split / f"class{number}" / "one.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(tf.io.encode_png(pixels).numpy())


@pytest.mark.parametrize("split", ["train", "val"])
def test_damaged_data(trainer: Trainer, tmp_path: Path, split: str) -> None:
    folder = tmp_path / "images"
    _images(folder)
    damaged = folder / split / "class1" / "one.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    data = ["--config.data.source=folder", f"--config.data.data_dir={folder}"]
    with pytest.raises(ConfigurationError) as failure:
        trainer("run", "--dry_run", *data, "--config.batch_size=3")
    assert str(damaged) in str(failure.value) and "\n" not in str(failure.value)
    assert not (tmp_path / "run").exists()


def test_a_first_step_that_diverges(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.train_step import TrainStep

    sums = {"loss": float("nan"), "num_examples": 32.0, "gradient_norm": 1.0}
    monkeypatch.setattr(TrainStep, "run", lambda *_: sums)
    with pytest.raises(ConfigurationError, match="already diverges: loss nan"):
        trainer("run", "--dry_run")


@pytest.mark.slow
def test_exit_statuses(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainers.train", "--dry_run", "--virtual_devices=2"]
    command += [f"--config={config_file(tmp_path, TINY_CONFIG)}", f"--workdir={tmp_path / 'run'}"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "nothing was written" in done.stdout
    wrong = run("--config.batch_size=31")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert len([x for x in wrong.stderr.splitlines() if x.startswith("error: ")]) == 1
    assert not (tmp_path / "run").exists()

"""A dry run: what it finds, and that it leaves nothing behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tests.helpers.processes import ROOT
from tests.helpers.small_runs import TINY_CONFIG
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import write_images
from tests.helpers.worker_hosts import ends_of
from tests.helpers.worker_hosts import error_line
from tests.helpers.worker_hosts import start_workers
from trainers.aot.tensorflow_steps import ReplicaStep
from trainers.utils.errors import ConfigurationError

MEMORY = "memory of a replica's {} step: "


@pytest.mark.every_backend
def test_memory_is_what_the_shapes_need() -> None:
    weights = tf.Variable(tf.zeros((256, 512)))

    def step(inputs: tf.Tensor) -> tf.Tensor:
        hidden = tf.nn.relu(inputs @ weights)  # (64, 512)
        return tf.reduce_sum(tf.sort(hidden, axis=0) * hidden)

    memory = ReplicaStep(step, (tf.TensorSpec((64, 256)),)).memory()
    assert memory is not None
    assert memory.arguments == 4 * (256 * 512 + 64 * 256)
    assert memory.temporaries >= 4 * 64 * 512
    assert 4 <= memory.results < 1000
    parts = (memory.arguments, memory.results, memory.temporaries, memory.constants)
    assert memory.total == sum(parts)
    larger = ReplicaStep(step, (tf.TensorSpec((128, 256)),)).memory()
    assert larger is not None and larger.temporaries > 1.8 * memory.temporaries


def test_what_is_not_compiled_has_no_memory() -> None:
    def step(text: tf.Tensor) -> tf.Tensor:
        return tf.strings.length(text)

    assert ReplicaStep(step, (tf.TensorSpec((), tf.string),)).memory() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", [pytest.param("one_device", marks=pytest.mark.extra), "mirrored"]
)
def test_it_runs_both_steps_and_writes_nothing(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    flags = ["--dry_run", f"--strategy={strategy}", "--config.data.final_split=test"]
    flags += ["--config.optimizer.freeze=embedding", "--config.optimizer.layer_decay=0.7"]
    flags += ["--config.class_weights=balanced", "--config.data.cutmix_alpha=1.0"]
    trainer("run", *flags, "--config.data.eval_sets=('t=digits:train',)")
    output = capsys.readouterr().out
    assert "784 of them frozen" in output and "class weights: " in output
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


@pytest.mark.parametrize("split", ["train", pytest.param("val", marks=pytest.mark.slow)])
def test_damaged_data(trainer: Trainer, tmp_path: Path, split: str) -> None:
    folder = tmp_path / "images"
    write_images(folder, classes=3)
    damaged = folder / split / "1" / "one.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    data = ["--config.data.source=folder", f"--config.data.data_dir={folder}"]
    with pytest.raises(ConfigurationError) as failure:
        trainer("run", "--dry_run", *data, "--config.batch_size=3")
    assert str(damaged) in str(failure.value) and "\n" not in str(failure.value)
    assert not (tmp_path / "run").exists()


def test_a_first_step_that_diverges(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.steps.train_step import TrainStep

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

    wrong = run("--config.batch_size=31")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert len([x for x in wrong.stderr.splitlines() if x.startswith("error: ")]) == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture
def hosts(tmp_path: Path) -> list[Path]:
    """The folders of two hosts, each with images of its own in it."""
    folders = [tmp_path / f"host_{index}" for index in range(2)]
    for folder in folders:
        write_images(folder / "images", classes=4)
    return folders


def _dry_run_on(folders: list[Path], *flags: str) -> list[tuple[int, str, str]]:
    """Starts a dry run in the folder of each host; returns how they end."""
    config = config_file(folders[0].parent)
    temporary = folders[0].parent / "temporary"
    temporary.mkdir()
    fixed = ["--dry_run", f"--config={config}", f"--workdir={folders[0].parent / 'run'}"]
    # A relative path: the same command, and not the same files.
    data = ["--config.data.source=folder", "--config.data.data_dir=images"]
    before = sorted(folders[0].parent.rglob("*"))
    command = ["trainers.train", *fixed, *data, "--config.batch_size=4", *flags]
    # TensorFlow imports functions from files that it writes there for a moment.
    variables = {"TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    with start_workers([command] * 2, folders, **variables) as workers:
        ends = ends_of(workers)
    assert sorted(folders[0].parent.rglob("*")) == before
    return ends


def _check_refused(hosts: list[Path], victim: int, own: str, others: str) -> None:
    """Checks that a dry run ends on both hosts, and what the victim and the other one say."""
    for host, (status, _, errors) in enumerate(_dry_run_on(hosts)):
        assert status == 2, errors
        assert (own if host == victim else others) in error_line(errors)


@pytest.mark.extra
def test_two_hosts(hosts: list[Path]) -> None:
    for status, output, errors in _dry_run_on(hosts):
        assert status == 0, errors
        assert "MultiWorkerMirroredStrategy, 2 replicas" in output
        assert output.count("num examples 4") == 1
        assert "nothing was written" in output


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.extra)])
def test_two_hosts_and_the_data_on_one(hosts: list[Path], victim: int) -> None:
    shutil.rmtree(hosts[victim] / "images")
    _check_refused(hosts, victim, "images", f"Host {victim} of 2 cannot continue")


@pytest.mark.extra
@pytest.mark.parametrize("victim", [0, 1])
def test_two_hosts_and_images_damaged_on_one(hosts: list[Path], victim: int) -> None:
    for path in (hosts[victim] / "images" / "train").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:40])
    _check_refused(hosts, victim, "one.png", f"Host {1 - victim} of 2 has lost another one")


@pytest.mark.extra
def test_two_hosts_and_an_indivisible_batch(hosts: list[Path]) -> None:
    for status, _, errors in _dry_run_on(hosts, "--config.batch_size=3"):
        assert status == 2, errors
        assert "set batch_size to 2 or 4" in error_line(errors)

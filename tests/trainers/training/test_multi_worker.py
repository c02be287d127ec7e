"""Two worker processes on this machine: maths, files, signals, resuming and evaluation."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from tests.helpers.equality import FEWER_CASES
from tests.helpers.equality import assert_same_training
from tests.helpers.equality import on_one_replica
from tests.helpers.processes import PATIENCE
from tests.helpers.processes import ROOT
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from tests.helpers.small_runs import rows
from tests.helpers.small_runs import write_images
from tests.helpers.video_runs import TRANSFORMER
from tests.helpers.video_runs import video_config
from tests.helpers.worker_hosts import Worker
from tests.helpers.worker_hosts import ends_of
from tests.helpers.worker_hosts import error_line
from tests.helpers.worker_hosts import start_workers
from trainers.evaluate import evaluate
from trainers.train import train

pytestmark = pytest.mark.slow

#: How the engines call two hosts with a CPU each.
DESCRIPTIONS = {
    "tensorflow": "MultiWorkerMirroredStrategy, 2 replicas: host {} of 2",
    "jax": ", 2 devices: host {} of 2",
}


tensorflow_first = pytest.mark.parametrize(
    "engine", ["tensorflow", pytest.param("jax", marks=pytest.mark.extra)], indirect=True
)


@pytest.fixture(params=DESCRIPTIONS)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine."""
    if request.param == "jax":
        pytest.importorskip("jax")
    return str(request.param)


def _train(workdir: Path, *flags: str) -> list[str]:
    """Returns the command that trains the tiny experiment, dropout off."""
    config = config_file(workdir.parent)
    # Some gradients are zero but for rounding; a small epsilon would make steps of that.
    fixed = [f"--config={config}", "--config.optimizer.epsilon=1e-5", f"--workdir={workdir}"]
    return ["trainers.train", *fixed, *flags]


def _wait_for(workers: list[Worker], condition: Callable[[], bool]) -> None:
    while not condition():
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.1)


def _train_on_one_host(workdir: Path, *flags: str) -> None:
    command = _train(workdir, "--strategy=one_device", *flags)
    values = parse(*command[1:])
    if values.engine in (None, keras.backend.backend()):
        train(values.config, workdir, strategy="one_device")
    else:
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, capture_output=True)


def test_two_workers_end_with_the_same_weights(tmp_path: Path) -> None:
    outputs = [tmp_path / "first.npz", tmp_path / "second.npz"]
    commands = [["tests.helpers.replica_process", str(output)] for output in outputs]
    with start_workers(commands) as workers:
        for status, _, errors in ends_of(workers):
            assert status == 0, errors
    first, second = map(np.load, outputs)
    assert first["replicas"] == second["replicas"] == 2
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name
    for case in FEWER_CASES:
        one = on_one_replica(case)
        assert_same_training(one, {name: first[f"{case}:{name}"] for name in one})


@pytest.mark.parametrize(
    "engine", ["jax", pytest.param("tensorflow", marks=pytest.mark.extra)], indirect=True
)
def test_a_run_on_two_hosts_resumes_on_one(tmp_path: Path, engine: str) -> None:
    workdir, whole = tmp_path / "hosts", tmp_path / "whole"
    flags = ["--config.total_steps=4", "--config.eval_steps=2", "--config.data.final_split=test"]
    flags += [f"--engine={engine}", "--config.model.width=128"]
    on_hosts, description, environment = [], DESCRIPTIONS[engine], {}
    if engine == "jax":
        # Each host has two devices, which share the weights.
        on_hosts, description = ["--model_axis=2"], ", 4 devices, 2 of them share the weights: host"
        environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = _train(workdir, "--strategy=multi_worker", *flags, *on_hosts)
    with start_workers([command] * 2, **environment) as workers:
        ends = ends_of(workers)
    for index, (status, output, errors) in enumerate(ends):
        assert status == 0, errors
        assert description.format(index) in output
        assert "finished" in output
    # One of them has written, and each row once.
    assert (workdir / "model.keras").is_file()
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    assert [row["step"] for row in rows(workdir, "train")] == [1, 2, 3, 4]
    assert [row["step"] for row in rows(workdir, "validation")] == [2, 4]
    assert [row["num_examples"] for row in rows(workdir, "validation")] == [269, 269]

    longer = [*flags, "--config.total_steps=6"]
    _train_on_one_host(workdir, *longer)
    _train_on_one_host(whole, *longer)
    assert [row["step"] for row in rows(workdir, "train")] == [1, 2, 3, 4, 5, 6]
    found, expected = (checkpoint_arrays(folder, 6) for folder in (workdir, whole))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.startswith(("model/", "optimizer/")):
            np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=0, err_msg=name)
    for row, other in zip(rows(workdir, "train"), rows(whole, "train"), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert row["accuracy"] == other["accuracy"]


@pytest.mark.extra
@pytest.mark.parametrize("engine", ["tensorflow", "jax"], indirect=True)
def test_a_signal_to_one_host_stops_both(tmp_path: Path, engine: str) -> None:
    workdir = tmp_path / "stopped"
    flags = ["--config.total_steps=1000000", "--config.steps_per_loop=5", "--config.log_steps=5"]
    flags.append(f"--engine={engine}")
    command = _train(workdir, "--strategy=multi_worker", *flags)
    with start_workers([command] * 2) as workers:
        _wait_for(workers, lambda: (workdir / "metrics.jsonl").exists() and len(rows(workdir)) > 1)
        workers[1].send_signal(signal.SIGTERM)
        ends = ends_of(workers)
    steps = {int(path.name.removeprefix("step_")) for path in (workdir / "checkpoints").iterdir()}
    assert len(steps) == 1
    for status, _, errors in ends:
        assert status == 128 + signal.SIGTERM, errors
        assert f"stopped by signal 15 at step {steps.copy().pop()}; the checkpoint" in errors
        assert "Traceback" not in errors
    # The hosts resume from there, together.
    flags = [f"--config.total_steps={max(steps) + 2}", f"--engine={engine}"]
    command = _train(workdir, "--strategy=multi_worker", *flags)
    with start_workers([command] * 2) as workers:
        for status, output, errors in ends_of(workers):
            assert status == 0, errors
            assert f"resuming at step {max(steps)}" in output


# JAX may abort a process that misses the first one before it can say why.
@pytest.mark.parametrize(
    ("engine", "victim"),
    [
        pytest.param("tensorflow", 0, marks=pytest.mark.extra),
        ("tensorflow", 1),
        pytest.param("jax", 1, marks=pytest.mark.extra),
    ],
    indirect=["engine"],
)
def test_a_host_that_is_killed_ends_the_other(tmp_path: Path, victim: int, engine: str) -> None:
    workdir = tmp_path / "killed"
    flags = ["--config.total_steps=1000000", "--config.steps_per_loop=5", "--config.log_steps=5"]
    flags.append(f"--engine={engine}")
    command = _train(workdir, "--strategy=multi_worker", *flags)
    with start_workers([command] * 2) as workers:
        _wait_for(workers, lambda: (workdir / "metrics.jsonl").exists() and len(rows(workdir)) > 1)
        workers[victim].kill()
        status, _, errors = ends_of(workers)[1 - victim]
    assert "Traceback" not in errors
    assert status == 1
    assert f"error: Host {1 - victim} of 2 has lost another one" in errors


@pytest.mark.extra
@pytest.mark.parametrize("engine", ["tensorflow", "jax"], indirect=True)
def test_control_c_ends_a_host_that_waits_for_another(tmp_path: Path, engine: str) -> None:
    command = _train(tmp_path / "alone", "--strategy=multi_worker", f"--engine={engine}")
    with start_workers([command, ["json.tool", "--help"]]) as workers:
        text = ""
        while "waiting for the others" not in text:
            assert workers[0].stderr is not None
            text = workers[0].stderr.readline()
            assert text
        time.sleep(1)  # until it is inside of TensorFlow
        workers[0].send_signal(signal.SIGINT)
        assert workers[0].wait(timeout=PATIENCE) == -signal.SIGINT
    assert not (tmp_path / "alone").exists()


@pytest.mark.extra
@pytest.mark.parametrize(
    ("folders", "flags", "message"),
    [
        (("same", "same"), ("--config.seed=0", "--config.seed=1"), "differ in the configuration"),
        (("done", "empty"), ("", ""), r"differ in the step to resume from (host 0: 2, host 1: 0)"),
    ],
)
def test_hosts_that_differ_are_refused(
    tmp_path: Path, folders: tuple[str, str], flags: tuple[str, str], message: str
) -> None:
    if "done" in folders:
        _train_on_one_host(tmp_path / "done", "--config.total_steps=2")
    commands = [
        _train(tmp_path / folder, "--strategy=auto", *filter(None, [flag]))
        for folder, flag in zip(folders, flags, strict=True)
    ]
    with start_workers(commands) as workers:
        for status, _, errors in ends_of(workers):
            assert message in errors and "Start the same command on all" in errors
            assert status == 2
            assert "Traceback" not in errors
    assert not (tmp_path / "empty").exists()
    assert not (tmp_path / "same").exists()


def _evaluate(workdir: Path, report: Path, *flags: str) -> list[str]:
    fixed = [f"--workdir={workdir}", f"--report={report}", "--eval_sets=validation,test"]
    return ["trainers.evaluate", *fixed, *flags]


def _evaluate_on_one_host(
    workdir: Path, report: Path, batch_size: int | None = None
) -> dict[str, Any]:
    evaluate(
        workdir,
        strategy="one_device",
        eval_sets="validation,test",
        report=report,
        batch_size=batch_size,
    )
    return json.loads(report.read_text())


def _assert_same_figures(report: dict[str, Any], other: dict[str, Any]) -> None:
    """Fails unless two reports agree: the metrics to 1e-6, the counts exactly."""
    assert report["step"] == other["step"] and report["weights"] == other["weights"]
    assert report["sets"].keys() == other["sets"].keys() == {"validation", "test"}
    for name, values in report["sets"].items():
        assert values["metrics"] == pytest.approx(other["sets"][name]["metrics"], abs=1e-6)
        matrix = values["confusion_matrix"]
        assert matrix == other["sets"][name]["confusion_matrix"]
        assert sum(map(sum, matrix)) == values["metrics"]["num_examples"]


@tensorflow_first
def test_two_hosts_evaluate_what_one_has_trained(tmp_path: Path, engine: str) -> None:
    pytest.importorskip("sklearn")
    workdir = tmp_path / "run"
    _train_on_one_host(workdir, "--config.ema_decay=0.5")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    # 269 and 270 examples: neither two hosts nor batches of 20 share them out evenly.
    reports = [tmp_path / f"report_{host}.json" for host in range(2)]
    flags = ["--strategy=multi_worker", "--batch_size=20", f"--engine={engine}"]
    with start_workers([_evaluate(workdir, report, *flags) for report in reports]) as workers:
        ends = ends_of(workers)
    for host, (status, output, errors) in enumerate(ends):
        assert status == 0, errors
        assert DESCRIPTIONS[engine].format(host) in output
        # Both know the figures; the chief alone writes them.
        assert output.count("num examples 269") == output.count("num examples 270") == 1
        assert reports[host].exists() == ("report: " in output) == (host == 0)
    found = json.loads(reports[0].read_text())
    _assert_same_figures(found, _evaluate_on_one_host(workdir, tmp_path / "alone.json"))
    (row,) = rows(workdir, "validation")
    assert found["sets"]["validation"]["metrics"]["num_examples"] == row["num_examples"] == 269
    assert found["sets"]["validation"]["metrics"]["loss"] == pytest.approx(row["loss"], abs=1e-6)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


@pytest.mark.extra
def test_two_hosts_rank_the_videos_as_one(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    text = video_config(tmp_path, TRANSFORMER, multi_label=True)
    workdir = tmp_path / "run"
    command = ["trainers.train", f"--config={config_file(tmp_path, text)}", f"--workdir={workdir}"]
    one_host = [sys.executable, "-m", *command, "--strategy=one_device"]
    subprocess.run(one_host, cwd=ROOT, check=True, capture_output=True)
    # 5 and 4 videos in batches of 4: the last ones are filled up.
    reports = [tmp_path / f"report_{host}.json" for host in range(2)]
    flags = ["--strategy=multi_worker", "--batch_size=4"]
    with start_workers([_evaluate(workdir, report, *flags) for report in reports]) as workers:
        for status, _, errors in ends_of(workers):
            assert status == 0, errors
    found = json.loads(reports[0].read_text())["sets"]
    alone = _evaluate_on_one_host(workdir, tmp_path / "alone.json", 3)["sets"]
    for name, count in (("validation", 5), ("test", 4)):
        for part in ("metrics", "average_precision"):
            assert found[name][part] == pytest.approx(alone[name][part], abs=1e-6)
        assert found[name]["metrics"]["num_examples"] == count
    (row,) = rows(workdir, "test")  # of all views, as those of the command
    for metric, value in found["test"]["metrics"].items():
        assert value == pytest.approx(row[metric], abs=1e-6)


@pytest.mark.extra
def test_one_host_evaluates_what_two_have_trained(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    workdir = tmp_path / "run"
    flags = ["--config.total_steps=2", "--config.data.final_split=test", "--config.ema_decay=0.5"]
    with start_workers([_train(workdir, "--strategy=multi_worker", *flags)] * 2) as workers:
        for status, _, errors in ends_of(workers):
            assert status == 0, errors
    found = _evaluate_on_one_host(workdir, tmp_path / "report.json", 7)
    assert found["step"] == 2
    for name, values in found["sets"].items():
        (row,) = rows(workdir, name)
        expected = {key: row[key] for key in values["metrics"]}
        assert values["metrics"] == pytest.approx(expected, abs=1e-6)
        assert values["metrics"]["num_examples"] == {"validation": 269, "test": 270}[name]


@pytest.mark.extra
@pytest.mark.parametrize("victim", [0, 1])
def test_an_evaluation_without_a_set_on_one_host_ends_on_both(tmp_path: Path, victim: int) -> None:
    workdir = tmp_path / "run"
    _train_on_one_host(workdir, "--config.total_steps=1")
    folders = [tmp_path / f"host_{host}" for host in range(2)]
    folders[victim].mkdir()
    write_images(folders[1 - victim] / "images", classes=10)
    command = ["trainers.evaluate", f"--workdir={workdir}", "--eval_sets=folder:validation@images"]
    with start_workers([command] * 2, folders) as workers:
        ends = ends_of(workers)
    for host, (status, _, errors) in enumerate(ends):
        assert status == 2, errors
        ours = host == victim
        assert ("images" if ours else f"Host {victim} of 2 cannot continue") in error_line(errors)


@pytest.mark.extra
def test_two_hosts_split_a_folder_alike(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    folders = [tmp_path / f"host_{host}" for host in range(2)]
    for folder in folders:
        for number in range(20):
            path = folder / "images" / str(number % 2) / f"{number}.webp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    extra = folders[1] / "images" / "0" / "extra.webp"
    extra.write_bytes((folders[1] / "images" / "0" / "0.webp").read_bytes())
    data = ["--config.data.source=folder", "--config.data.data_dir=images"]
    command = _train(workdir, "--strategy=multi_worker", *data, "--config.batch_size=4")
    with start_workers([command] * 2, folders) as workers:
        for status, _, errors in ends_of(workers):
            assert status == 2, errors
            assert "differ in how the files are split" in error_line(errors)
    assert not workdir.exists()
    extra.unlink()
    with start_workers([command] * 2, folders) as workers:
        for status, _, errors in ends_of(workers):
            assert status == 0, errors
    listed = json.loads((workdir / "split.json").read_text())
    assert sorted(listed.values()) == ["test"] * 2 + ["train"] * 16 + ["validation"] * 2
    assert rows(workdir, "validation")[-1]["num_examples"] == 2

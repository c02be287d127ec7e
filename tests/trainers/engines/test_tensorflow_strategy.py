"""Which strategy a flag gives, and what it says when the devices are not there.

TPUs are stood in for by fakes at TensorFlow's boundary; several processes are in
test_multi_worker.py.
"""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.small_runs import engine_of
from trainers.engines import tensorflow_strategy
from trainers.engines.tensorflow_engine import TensorFlowEngine
from trainers.engines.tensorflow_strategy import describe_topology
from trainers.engines.tensorflow_strategy import make_strategy
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError

TWO_WORKERS = {
    "cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]},
    "task": {"type": "worker", "index": 1},
}


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts down what would be made: a process can hold one strategy of several devices."""
    # Made and kept for all tests before the stand-ins could take its place.
    if len(tf.config.list_logical_devices("CPU")) > 1:
        engine_of(2)
    arguments: dict[str, Any] = {}

    def stand_in(original: type, name: str) -> type:
        def note(self: Any, *given: Any) -> None:
            arguments[name] = given

        return type(name, (original,), {"__init__": note})

    monkeypatch.delenv("TF_CONFIG", raising=False)
    for made_once in ("_mirrored_strategy", "_multi_worker_strategy", "_tpu_strategy"):
        function = getattr(tensorflow_strategy, made_once)
        monkeypatch.setattr(tensorflow_strategy, made_once, function.__wrapped__)
    for name in ("MirroredStrategy", "MultiWorkerMirroredStrategy", "TPUStrategy"):
        original = getattr(tf.distribute, name)
        monkeypatch.setattr(tf.distribute, name, stand_in(original, name))
    return arguments


def _devices(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(tensorflow_strategy, "_devices", lambda: list(names))


def test_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    _devices(monkeypatch, "CPU:0")
    for name in ("one_device", "auto"):
        strategy = make_strategy(name)
        assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
        assert TensorFlowEngine(strategy).describe().startswith("OneDeviceStrategy, 1 replica: ")


def test_several_devices(monkeypatch: pytest.MonkeyPatch, made: dict[str, Any]) -> None:
    _devices(monkeypatch, "GPU:0", "GPU:1")
    for name in ("mirrored", "auto"):
        made.clear()
        make_strategy(name)
        assert made == {"MirroredStrategy": (["GPU:0", "GPU:1"],)}
    assert isinstance(make_strategy("one_device"), tf.distribute.OneDeviceStrategy)


@pytest.mark.parametrize("name", ["auto", "multi_worker"])
def test_the_workers_of_tf_config(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    made: dict[str, Any],
    name: str,
) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps(TWO_WORKERS))
    make_strategy(name)
    assert made == {"MultiWorkerMirroredStrategy": ()}
    assert "host 1 of 2, waiting for the others: 127.0.0.1:1" in capsys.readouterr().err


def test_a_single_worker(monkeypatch: pytest.MonkeyPatch, made: dict[str, Any]) -> None:
    config = {"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    _devices(monkeypatch, "CPU:0")
    assert isinstance(make_strategy("auto"), tf.distribute.OneDeviceStrategy)
    make_strategy("multi_worker")
    assert made == {"MultiWorkerMirroredStrategy": ()}


@pytest.mark.parametrize("name", ["mirrored", "one_device"])
def test_other_strategies_leave_tf_config_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TF_CONFIG", "{garbled")
    _devices(monkeypatch, "CPU:0")
    assert make_strategy(name)


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        (("multi_workers",), None, "must be one of auto, tpu, mirrored, multi_worker"),
        (("multi_worker",), None, "needs the environment variable TF_CONFIG"),
        (("multi_worker",), "{}", "needs the environment variable TF_CONFIG"),
        (("multi_worker",), "{garbled", "TF_CONFIG is wrong: it is not JSON"),
        (("auto",), "{garbled", "TF_CONFIG is wrong: it is not JSON"),
        (("multi_worker", None, 2), json.dumps(TWO_WORKERS), "TF_CONFIG names 2 workers"),
        (("auto", None, 2), json.dumps(TWO_WORKERS), "Leave one of them out"),
        (("multi_worker", "local"), None, "--tpu=local needs --strategy=tpu or auto"),
        (("auto", None, 0), None, "--virtual_devices must be at least 1"),
    ],
)
def test_wrong_flags(
    monkeypatch: pytest.MonkeyPatch, arguments: Any, config: str | None, message: str
) -> None:
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ConfigurationError, match=message):
        make_strategy(*arguments)


def test_workers_that_do_not_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise tf.errors.UnknownError(None, None, "Could not start gRPC server\nat all")

    monkeypatch.setattr(tf.distribute.MultiWorkerMirroredStrategy, "__init__", fail)
    monkeypatch.setenv("TF_CONFIG", json.dumps(TWO_WORKERS))
    message = r"\(Could not start gRPC server\).* all 2 .*listen at 127.0.0.1:2\.$"
    with pytest.raises(TrainingError, match=message):
        make_strategy("multi_worker")


def _topology(mesh: list[int], hosts: int, devices: int) -> Any:
    coordinates = np.indices(mesh).reshape(4, -1).T.reshape(hosts, devices, 4)
    return tf.tpu.experimental.Topology(mesh_shape=mesh, device_coordinates=coordinates)


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (([1, 1, 1, 1], 1, 1), "TPU: 1 chip, 1 core, 1 host, mesh 1x1x1x1"),
        (([2, 2, 1, 2], 1, 8), "TPU: 4 chips, 8 cores, 1 host, mesh 2x2x1x2"),
        (([4, 4, 1, 1], 4, 4), "TPU: 16 chips, 16 cores, 4 hosts, mesh 4x4x1x1"),
    ],
)
def test_topologies(topology: Any, expected: str) -> None:
    assert describe_topology(_topology(*topology)) == expected


@pytest.mark.parametrize(
    ("name", "tpu", "asked_for"),
    [("tpu", "local", "local"), ("tpu", None, ""), ("auto", "my-pod", "my-pod")],
)
def test_a_tpu_is_connected_and_initialised(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    made: dict[str, Any],
    name: str,
    tpu: str | None,
    asked_for: str,
) -> None:
    calls = []

    def resolver(tpu: str) -> SimpleNamespace:
        calls.append(("resolve", tpu))
        return SimpleNamespace(tpu=tpu)

    def initialise(found: SimpleNamespace) -> Any:
        calls.append(("initialise", found.tpu))
        return _topology([2, 2, 1, 1], 1, 4)

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    monkeypatch.setattr(
        tf.config,
        "experimental_connect_to_cluster",
        lambda found: calls.append(("connect", found.tpu)),
    )
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", initialise)
    make_strategy(name, tpu)
    assert calls == [(call, asked_for) for call in ("resolve", "connect", "initialise")]
    assert made["TPUStrategy"][0].tpu == asked_for
    assert "TPU: 4 chips, 4 cores, 1 host" in capsys.readouterr().out


def test_no_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolver(tpu: str) -> None:
        raise ValueError(f"there is no TPU {tpu}.\nAnd a second line.")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    with pytest.raises(ConfigurationError) as failure:
        make_strategy("tpu", "mine")
    assert "(there is no TPU mine). On a Cloud TPU VM: install" in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_process_is_the_chief_and_agrees_with_itself(replicas: int) -> None:
    hosts = engine_of(replicas).hosts
    assert (hosts.count, hosts.index, hosts.is_chief) == (1, 0, True)
    assert hosts.all_values(7) == [7]
    assert hosts.max(7) == 7
    hosts.check_same("the step", 7)
    hosts.barrier()

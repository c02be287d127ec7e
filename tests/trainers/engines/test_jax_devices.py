"""The JAX devices that the flags ask for, and flags that ask for none that are there."""

import json
from typing import Any

import numpy as np
import pytest

from tests.helpers.backends import ON_JAX
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError

if not ON_JAX:
    pytest.skip("JAX only: TensorFlow's are in test_distribution.py", allow_module_level=True)

import jax

from trainers.engines import jax_devices
from trainers.engines.jax_devices import find_devices

pytestmark = pytest.mark.every_backend


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)


@pytest.mark.parametrize(("strategy", "count"), [("auto", 8), ("mirrored", 8), ("one_device", 1)])
def test_devices_by_strategy(strategy: str, count: int) -> None:
    devices, hosts = find_devices(strategy)
    assert list(devices) == jax.devices()[:count]
    assert hosts.count == 1 and hosts.is_chief


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("tpu", "my-tpu"), "expected --tpu=local. Received 'my-tpu'. .*--strategy=multi_worker"),
        (("auto", "grpc://10.0.0.2:8470"), "expected --tpu=local"),
        (("tpu",), r"No TPU was found .*JAX sees: cpu.*\[jax-tpu\].*--strategy=auto"),
        (("auto", "local"), "No TPU was found"),
        (("mirrored", "local"), "--tpu=local needs --strategy=tpu or auto"),
        (("pod",), "--strategy must be one of auto, .* Received: 'pod'"),
        (("auto", None, 0), "--virtual_devices must be at least 1. Received: 0"),
        (("auto", None, -1), "--virtual_devices must be at least 1. Received: -1"),
        # The tests have used devices by now.
        (("auto", None, 4), "--virtual_devices.* first call of the process"),
        (("multi_worker", None, 2), "--virtual_devices .* joins several. Leave one of them out"),
    ],
)
def test_wrong_flags(flags: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        jax.devices()
        find_devices(*flags)
    assert "\n" not in str(refused.value)


def test_a_device_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("Unable to initialize backend 'tpu': ALREADY_IN_USE.\nSee above.")

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(ConfigurationError, match="cannot use a device: .* ALREADY_IN_USE.$"):
        find_devices("auto")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no address\n"), ConfigurationError, r"\(no address\). .* TF_CONFIG"),
        (RuntimeError("DEADLINE_EXCEEDED.\n\n"), TrainingError, r"\(DEADLINE_EXCEEDED\). Check"),
    ],
)
def test_processes_that_do_not_come_together(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], message: str
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(kind, match=message) as refused:
        find_devices("multi_worker")
    assert "\n" not in str(refused.value)


def test_a_first_host_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = ["no.such.host.invalid:2222", "127.0.0.1:2222"]
    task = {"type": "worker", "index": 1}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": workers}, "task": task}))
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("would wait"))
    with pytest.raises(ConfigurationError, match="no host 'no.such.host.invalid'"):
        find_devices("multi_worker")


@pytest.mark.parametrize("value", [0, 5, -1, -(2**40) - 7, 2**63 - 1, -(2**63)])
def test_hosts_compare_whole_numbers_of_64_bits(
    monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    def gather(halves: np.ndarray) -> np.ndarray:
        # As a device has it, which knows no more than 32 bits.
        return np.stack([np.asarray(jax.numpy.asarray(halves)), np.zeros(2, np.uint32)])

    monkeypatch.setattr(jax_devices.multihost_utils, "process_allgather", gather)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    _, hosts = find_devices("auto")
    assert (hosts.count, hosts.index, hosts.is_chief) == (2, 1, False)
    assert hosts.all_values(value) == [value, 0]

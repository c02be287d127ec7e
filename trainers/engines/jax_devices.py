"""Finds the JAX devices and processes that the flags ask for."""

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from trainers.engines.cluster import Cluster
from trainers.engines.hosts import Hosts
from trainers.engines.tensorflow_strategy import check_flags
from trainers.engines.tensorflow_strategy import too_late_for_virtual_devices
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError
from trainers.utils.errors import first_line
from trainers.utils.signals import own_signal_handlers

_NO_TPU = (
    "No TPU was found for --strategy=tpu or --tpu (JAX sees: {found}). On a TPU VM install "
    "'.[jax-tpu]' in a clone, and see that no other process holds the chips. Without a TPU use "
    "--strategy=auto."
)
_HALVES = 2**32
_SECONDS_TO_WAIT = 24 * 60 * 60  # for the other processes


def find_devices(
    strategy: str, tpu: str | None = None, virtual_devices: int | None = None
) -> tuple[Sequence[Any], Hosts]:
    """Returns the devices of a strategy, and the processes that train together.

    `auto` and `mirrored` take all devices, `tpu` all cores of the TPU, `one_device` the first.
    `multi_worker` joins the processes of TF_CONFIG, or without it those that JAX detects (a TPU
    pod, Slurm).
    """
    if strategy == "multi_worker" and not os.environ.get("TF_CONFIG", "").strip():
        if virtual_devices is not None:
            raise ConfigurationError(
                "--virtual_devices rehearses replicas in one process, and --strategy=multi_worker "
                "joins several. Leave one of them out."
            )
        _join(None)
    else:
        cluster = check_flags(strategy, tpu, virtual_devices)
        if tpu not in (None, "", "local"):
            raise ConfigurationError(
                f"JAX runs on the TPU of this machine: expected --tpu=local. Received {tpu!r}. "
                "Run the command on the TPU VM, on a pod on all of its hosts with "
                "--strategy=multi_worker."
            )
        if virtual_devices is not None:
            _make_virtual_devices(virtual_devices)
        if cluster is not None:
            _join(cluster)
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise ConfigurationError(f"JAX cannot use a device: {first_line(error)}.") from error
    if (strategy == "tpu" or tpu) and devices[0].platform != "tpu":
        raise ConfigurationError(_NO_TPU.format(found=devices[0].platform))
    if strategy == "one_device":
        devices = devices[:1]
    if jax.process_count() == 1:
        return devices, Hosts()
    lost = (jax.errors.JaxRuntimeError,)
    return devices, Hosts(jax.process_count(), jax.process_index(), _gather, lost)


def _make_virtual_devices(count: int) -> None:
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise too_late_for_virtual_devices("JAX", error) from error
    found = len(jax.devices())
    if found != count:
        raise ConfigurationError(
            f"--virtual_devices={count}: JAX has {found} devices already; set it in the first "
            "call of the process."
        )


def _join(cluster: Cluster | None) -> None:
    """Joins the other processes; a cluster of None lets JAX detect them."""
    if jax.distributed.is_initialized():  # by an earlier call of this process
        return
    with contextlib.suppress(AttributeError):
        # JAX would catch SIGTERM, on which a training saves and stops.
        jax.config.update("jax_enable_preemption_service", False)
    arguments: dict[str, Any] = {}
    if cluster is not None:
        addresses = cluster.addresses
        _check_resolves(addresses[0])
        arguments = {
            "coordinator_address": addresses[0],
            "num_processes": len(addresses),
            "process_id": cluster.index,
            # JAX aborts the process after it. Ctrl-C ends the wait earlier.
            "initialization_timeout": _SECONDS_TO_WAIT,
        }
        cluster.print_waiting()
    try:
        with own_signal_handlers():
            jax.distributed.initialize(**arguments)
    except ValueError as error:
        raise ConfigurationError(
            "--strategy=multi_worker: JAX finds no other processes "
            f"({first_line(error)}). Run it on every host of a TPU pod or under Slurm, or name "
            "the processes in the environment variable TF_CONFIG."
        ) from error
    except RuntimeError as error:
        raise TrainingError(
            f"The processes did not come together ({first_line(error)}). Check that all of "
            "them are running, and that the first one's address can be reached."
        ) from error


def _check_resolves(address: str) -> None:
    """Refuses a coordinator whose host name does not resolve; JAX would retry until it aborts."""
    host = address.rpartition(":")[0]
    try:
        socket.getaddrinfo(host.strip("[]"), None)
    except OSError as error:
        raise ConfigurationError(
            f"The environment variable TF_CONFIG names {address} as the first worker, and there "
            f"is no host {host!r} ({error.strerror or error}). Set it on each machine to "
            "addresses that all of them know."
        ) from error


def _gather(value: int) -> list[int]:
    # JAX has no 64-bit integers by default: send two unsigned halves.
    halves = np.array([value // _HALVES % _HALVES, value % _HALVES], np.uint32)
    found = np.asarray(multihost_utils.process_allgather(halves)).astype(np.uint64)
    return [int(np.uint64(high * _HALVES + low).astype(np.int64)) for high, low in found]

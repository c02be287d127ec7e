"""Makes the tf.distribute strategy that a flag asks for."""

import functools
import math
from typing import Any

import tensorflow as tf

from trainers.engines.cluster import Cluster
from trainers.engines.cluster import cluster_from_environment
from trainers.engines.hosts import Hosts
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError
from trainers.utils.errors import did_you_mean
from trainers.utils.errors import first_line
from trainers.utils.signals import own_signal_handlers

# What a step raises when another process is gone; the last two are from a broken stream.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)

STRATEGIES = ("auto", "tpu", "mirrored", "multi_worker", "one_device")

_NO_TPU = (
    "No TPU was found for --strategy=tpu ({reason}). On a Cloud TPU VM: install "
    "'.[tpu,train]' in a clone, set TPU_NAME=local PJRT_DEVICE=TPU "
    "NEXT_PLUGGABLE_DEVICE_USE_C_API=true "
    "TF_XLA_FLAGS=--tf_mlir_enable_mlir_bridge=true and TF_PLUGGABLE_DEVICE_LIBRARY_PATH to "
    "libtpu/libtpu.so in site-packages, and pass --tpu=local; for a TPU elsewhere pass "
    "--tpu=NAME. Without a TPU use --strategy=auto."
)


def make_strategy(
    name: str, tpu: str | None = None, virtual_devices: int | None = None
) -> tf.distribute.Strategy:
    """Returns the strategy by name. Call it before TensorFlow touches a device.

    A second call in a process returns the strategy of the first one: the collective operations
    of two are mixed up, and a TPU that is initialised again forgets the models on it.

    `auto` takes a TPU if one is named, the workers of TF_CONFIG if there are several, all GPUs if
    there are several, else one device. `mirrored` takes all GPUs, or all virtual devices.
    `multi_worker` takes the workers of TF_CONFIG with all their GPUs. `tpu` is `local` on a TPU VM,
    or the name or address of a TPU; a pod is one TPU.
    """
    cluster = check_flags(name, tpu, virtual_devices)
    if virtual_devices is not None:
        _make_virtual_devices(virtual_devices)
    if name == "tpu" or tpu:
        return _tpu_strategy(tpu)
    if cluster is not None:
        return _multi_worker_strategy(cluster)
    devices = _devices()
    if name == "one_device" or (name == "auto" and len(devices) == 1):
        return tf.distribute.OneDeviceStrategy(devices[0])
    return _mirrored_strategy(tuple(devices))


def hosts_of(strategy: tf.distribute.Strategy) -> Hosts:
    """Returns the processes that train together under a strategy."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return Hosts()
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict()
    before = len(jobs.get("chief", ())) if resolver.task_type == "worker" else 0
    count = sum(map(len, jobs.values()))

    @tf.function
    def of_replicas(value: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(tf.identity, args=(value,)), axis=0)

    def gather(value: int) -> list[int]:
        values = of_replicas(tf.constant([value], tf.int64)).numpy().tolist()
        return list(values[:: len(values) // count])

    return Hosts(count, before + int(resolver.task_id), gather, _LOST)


def describe_topology(topology: Any) -> str:
    """Returns one line about a `tf.tpu.experimental.Topology`: chips, cores and hosts."""
    mesh = [int(size) for size in topology.mesh_shape]  # x, y, z and the cores of a chip
    # A slice of a larger mesh lacks some of its chips: count devices, not the mesh.
    cores = topology.num_tasks * topology.num_tpus_per_task
    chips = math.ceil(cores / mesh[-1])
    shape = "x".join(map(str, mesh))
    parts = [_count(chips, "chip"), _count(cores, "core"), _count(topology.num_tasks, "host")]
    return f"TPU: {', '.join(parts)}, mesh {shape}"


def check_flags(name: str, tpu: str | None, virtual_devices: int | None) -> Cluster | None:
    """Checks that the flags of `make_strategy` agree; returns the workers to train with, if any."""
    if name not in STRATEGIES:
        raise ConfigurationError(
            f"--strategy must be one of {', '.join(STRATEGIES)}. Received: {name!r}."
            + did_you_mean(name, STRATEGIES)
        )
    if tpu and name not in ("auto", "tpu"):
        raise ConfigurationError(
            f"--tpu={tpu} needs --strategy=tpu or auto. Received --strategy={name}."
        )
    if virtual_devices is not None and virtual_devices < 1:
        raise ConfigurationError(
            f"--virtual_devices must be at least 1. Received: {virtual_devices}."
        )
    if tpu or name not in ("auto", "multi_worker"):
        return None
    cluster = cluster_from_environment()
    if name == "auto" and (cluster is None or len(cluster.addresses) == 1):
        return None
    if cluster is None:
        raise ConfigurationError(
            "--strategy=multi_worker needs the environment variable TF_CONFIG, which names "
            "the workers and says which of them this is. It names none. On one machine use "
            "--strategy=mirrored or auto."
        )
    if virtual_devices is not None:
        raise ConfigurationError(
            "--virtual_devices rehearses replicas in one process; TF_CONFIG names "
            f"{_count(len(cluster.addresses), 'worker')}. Leave one of them out."
        )
    return cluster


def _devices() -> list[str]:
    """Returns all GPUs, or the (virtual) CPUs if there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    return [device.name for device in gpus or tf.config.list_logical_devices("CPU")]


def _make_virtual_devices(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        if tf.config.get_visible_devices("GPU"):
            tf.config.set_visible_devices([], "GPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise too_late_for_virtual_devices("TensorFlow", error) from error


def too_late_for_virtual_devices(framework: str, error: RuntimeError) -> ConfigurationError:
    """Returns the error of a process that has used its devices already."""
    return ConfigurationError(
        f"--virtual_devices must be set before {framework} uses a device; set it in the first "
        f"call of the process ({first_line(error)})."
    )


@functools.cache
def _mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(list(devices))


@functools.cache
def _tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    # The resolver and the runtime raise errors of many types when no TPU is
    # there; all of them mean the same to the user.
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu or "")
        tf.config.experimental_connect_to_cluster(resolver)
        topology = tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:
        raise ConfigurationError(_NO_TPU.format(reason=first_line(error))) from error
    print(describe_topology(topology), flush=True)
    return tf.distribute.TPUStrategy(resolver)


@functools.cache
def _multi_worker_strategy(cluster: Cluster) -> tf.distribute.Strategy:
    cluster.print_waiting()
    try:
        with own_signal_handlers():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise TrainingError(
            f"The workers of TF_CONFIG did not come together ({first_line(error)}). Check "
            f"that all {len(cluster.addresses)} are running, and that this one can listen "
            f"at {cluster.addresses[cluster.index]}."
        ) from error


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

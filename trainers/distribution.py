"""The tf.distribute strategy that a flag asks for."""

import tensorflow as tf

from trainers.errors import ConfigurationError

STRATEGIES = ("auto", "one_device", "mirrored", "tpu")

_NO_TPU = (
    "No TPU was found for --strategy=tpu ({reason}). On a Cloud TPU VM: install "
    "'tokenlearner-keras[tpu,train]', set TPU_NAME=local PJRT_DEVICE=TPU "
    "NEXT_PLUGGABLE_DEVICE_USE_C_API=true and TF_PLUGGABLE_DEVICE_LIBRARY_PATH to "
    "libtpu/libtpu.so in site-packages, and pass --tpu=local; for a TPU elsewhere pass "
    "--tpu=NAME. Without a TPU use --strategy=auto."
)


def make_strategy(
    name: str, tpu: str | None = None, virtual_devices: int | None = None
) -> tf.distribute.Strategy:
    """Returns the strategy by name. Call it before TensorFlow touches a device.

    Args:
        name: `auto` (a TPU if one is named, all GPUs if there are several, else one
            device), `one_device`, `mirrored` or `tpu`.
        tpu: `local` on a TPU VM, or the name or address of a TPU.
        virtual_devices: Cuts the CPU into that many devices, to rehearse replicas.

    Raises:
        ConfigurationError: If the name is unknown or the devices are not there.
    """
    if name not in STRATEGIES:
        raise ConfigurationError(
            f"--strategy must be one of {', '.join(STRATEGIES)}. Received: {name!r}."
        )
    if tpu and name not in ("auto", "tpu"):
        raise ConfigurationError(
            f"--tpu={tpu} needs --strategy=tpu or auto. Received --strategy={name}."
        )
    if virtual_devices is not None:
        _make_virtual_devices(virtual_devices)
    if name == "tpu" or tpu:
        return _tpu_strategy(tpu)
    devices = _devices()
    if name == "one_device" or (name == "auto" and len(devices) == 1):
        return tf.distribute.OneDeviceStrategy(devices[0])
    return tf.distribute.MirroredStrategy(devices)


def describe_strategy(strategy: tf.distribute.Strategy) -> str:
    """Returns one line: the strategy's kind and its replicas."""
    kind = type(strategy).__name__
    replicas = strategy.num_replicas_in_sync
    workers = ", ".join(str(device) for device in strategy.extended.worker_devices)
    return f"{kind}, {replicas} replica{'s' if replicas > 1 else ''}: {workers}"


def _devices() -> list[str]:
    """Returns all GPUs, or the (virtual) CPUs if there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    return [device.name for device in gpus or tf.config.list_logical_devices("CPU")]


def _make_virtual_devices(count: int) -> None:
    if count < 1:
        raise ConfigurationError(f"--virtual_devices must be at least 1. Received: {count}.")
    if tf.config.list_physical_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise ConfigurationError(
            "--virtual_devices must be set before TensorFlow uses a device; set it in "
            f"the first call of the process ({error})."
        ) from error


def _tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    # Errors of many types come up from the resolver and the runtime when no TPU is
    # there; all of them mean the same to the user.
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu or "")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ConfigurationError(_NO_TPU.format(reason=reason.rstrip("."))) from error
    return tf.distribute.TPUStrategy(resolver)

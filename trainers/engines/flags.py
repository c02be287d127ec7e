"""Makes the engine of a command, and defines the flags that choose it."""

import logging
from typing import Any

import keras
import tensorflow as tf
from absl import flags

from trainers.engines.engine import Engine
from trainers.engines.hosts import Hosts
from trainers.engines.tensorflow_engine import TensorFlowEngine
from trainers.engines.tensorflow_strategy import STRATEGIES
from trainers.engines.tensorflow_strategy import make_strategy
from trainers.utils.errors import ConfigurationError
from trainers.utils.process import ENGINES

# The flags belong to the module that calls `define_flags`, and so to its --help.
flags.disclaim_key_flags()


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for each argument of `make_engine`."""
    values = {"flag_values": flag_values}
    define_engine_flag(flag_values)
    flags.DEFINE_enum("strategy", "auto", STRATEGIES, "How to distribute the work.", **values)
    flags.DEFINE_string(
        "tpu", None, "'local' on a TPU VM; on TensorFlow also the name of a TPU.", **values
    )
    flags.DEFINE_integer(
        "virtual_devices",
        None,
        "Cut the CPU into that many devices, which share the batch, to rehearse.",
        **values,
    )
    define_axis_flags(flag_values)


def define_engine_flag(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flag that names the engine."""
    flags.DEFINE_enum(
        "engine",
        None,
        ENGINES,
        "What runs the steps; KERAS_BACKEND, or tensorflow, if not given.",
        flag_values=flag_values,
    )


def define_axis_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the axes of the mesh of devices."""
    values = {"flag_values": flag_values}
    flags.DEFINE_integer(
        "batch_axis", None, "jax: copies of the weights; as many as fit if not given.", **values
    )
    flags.DEFINE_integer(
        "model_axis", 1, "jax: devices that share a copy of weights and optimizer.", **values
    )


def check_backend(engine: str | None = None) -> str:
    """Checks that Keras runs on an engine's backend; returns the engine's name.

    Args:
        engine: As `--engine`; None accepts the backend that Keras runs on.

    Raises:
        ConfigurationError: If Keras runs on another backend, or on one without an engine.
    """
    backend = str(keras.backend.backend())
    if backend not in ENGINES:
        raise ConfigurationError(
            f"The trainer runs on Keras' backends {' and '.join(ENGINES)}. Received "
            f"KERAS_BACKEND={backend}. Unset it, or set it to one of these."
        )
    if engine not in (None, backend):
        # A command sets the backend before Keras is imported; a program has to do it itself.
        raise ConfigurationError(
            f"--engine={engine} needs Keras on that backend, and it is on {backend} already. "
            f"Set KERAS_BACKEND={engine} before Keras is imported."
        )
    return backend


def check_axes(batch_axis: int | None, model_axis: int) -> None:
    """Refuses `--batch_axis` and `--model_axis`, for an engine whose replicas have all weights."""
    if batch_axis is not None or model_axis != 1:
        raise ConfigurationError(
            "--batch_axis and --model_axis are for --engine=jax; under TensorFlow every "
            "replica has all weights. Leave them out, or set --engine=jax."
        )


def check_tensorflow(command: str) -> None:
    """Checks that Keras runs on TensorFlow, whose graphs the command needs."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ConfigurationError(
            f"{command} runs on Keras' TensorFlow backend, also for what was trained on another "
            f"engine. Received KERAS_BACKEND={backend}. Unset it, or set it to tensorflow."
        )


def engine_arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the flags of `define_flags` as keyword arguments of `make_engine`."""
    names = ("engine", "strategy", "tpu", "virtual_devices", "batch_axis", "model_axis")
    return {name: getattr(values, name) for name in names}


def make_engine(
    engine: str | None = None,
    *,
    strategy: str = "auto",
    tpu: str | None = None,
    virtual_devices: int | None = None,
    batch_axis: int | None = None,
    model_axis: int = 1,
) -> Engine:
    """Returns the engine of Keras' backend on the devices that the arguments choose.

    Call it before anything touches a device; calls with the same arguments may be repeated.

    Args:
        engine: "tensorflow" or "jax", which Keras has to run on; None is the one it runs on.
        strategy: "auto", "tpu", "mirrored", "multi_worker" or "one_device"; see `make_strategy`.
        tpu: "local" on a TPU VM; on TensorFlow also the name of a TPU.
        virtual_devices: Cuts the CPU into that many devices, to rehearse.
        batch_axis: On JAX, copies of the weights; None: as many as fit.
        model_axis: On JAX, devices that share a copy of weights and optimizer.

    Raises:
        ConfigurationError: If the arguments do not agree, or the devices are missing.
        TrainingError: If the processes that should train together do not connect.
    """
    backend = check_backend(engine)
    # At INFO, tf.distribute logs a line per variable, and JAX one per missing kind of device.
    for name in ENGINES:
        logging.getLogger(name).setLevel(logging.WARNING)
    if backend == "tensorflow":
        check_axes(batch_axis, model_axis)
        return TensorFlowEngine(make_strategy(strategy, tpu, virtual_devices))
    _leave_accelerators_to_jax()
    from trainers.engines.jax_devices import find_devices
    from trainers.engines.jax_engine import JaxEngine
    from trainers.engines.jax_sharding import JaxLayout

    devices, hosts = find_devices(strategy, tpu, virtual_devices)
    return JaxEngine(JaxLayout(devices, batch_axis, model_axis), hosts)


def make_local_engine() -> Engine:
    """Returns the engine of Keras' backend on one device of this process."""
    if check_backend() == "tensorflow":
        return TensorFlowEngine(tf.distribute.get_strategy())
    _leave_accelerators_to_jax()
    import jax

    from trainers.engines.jax_engine import JaxEngine
    from trainers.engines.jax_sharding import JaxLayout

    return JaxEngine(JaxLayout(jax.local_devices()[:1]), Hosts())


def _leave_accelerators_to_jax() -> None:
    # TensorFlow reads the data, and would take the memory of all GPUs for itself.
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)

"""Shards batches, and weights where asked, over a mesh of JAX devices."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
from numpy.typing import NDArray

from trainers.engines.engine import to_numpy
from trainers.utils.errors import ConfigurationError

BATCH_AXIS, MODEL_AXIS = "batch", "model"
#: A batch is cut along both axes: devices that share a copy of the weights still work on
#: different examples.
BOTH_AXES = (BATCH_AXIS, MODEL_AXIS)
# Smaller arrays are whole on each device: cutting them up saves nothing.
_SMALLEST_CUT = 2**14  # elements


class JaxLayout:
    """A mesh of all devices of all hosts, and the sharding of every kind of array on it.

    Args:
        devices: All of them.
        batch_axis: Copies of the weights; None: as many as the devices allow.
        model_axis: Devices that share a copy of weights and optimizer state.
    """

    def __init__(
        self, devices: Sequence[Any], batch_axis: int | None = None, model_axis: int = 1
    ) -> None:
        shape = _mesh_shape(len(devices), batch_axis, model_axis)
        # Each row is on one host where that is possible.
        ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
        self.mesh = Mesh(np.array(ordered, dtype=object).reshape(shape), BOTH_AXES)
        self.num_devices = len(devices)
        self.model_axis = model_axis
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.batch = NamedSharding(self.mesh, PartitionSpec(BOTH_AXES))
        _check_hosts(self.mesh)

    def in_force(self) -> AbstractContextManager[Any]:
        """Tells kernels, which the compiler cannot divide, how the devices share the batch."""
        return jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)

    def sharding_of(self, shape: Sequence[int]) -> NamedSharding:
        """Returns a variable's sharding: whole, or cut along its longest even dimension.

        The moments of an optimizer have the shapes of their weights, and so the same sharding.
        """
        # An even dimension is a multiple of `model_axis`.
        even = [size if size % self.model_axis == 0 else 0 for size in shape]
        if self.model_axis == 1 or math.prod(shape) < _SMALLEST_CUT or not any(even):
            return self.replicated
        axis = int(np.argmax(even))
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, MODEL_AXIS))

    def device_bytes(self, variables: Sequence[Any]) -> int:
        return sum(
            math.prod(self.sharding_of(variable.shape).shard_shape(tuple(variable.shape)))
            * np.dtype(variable.dtype).itemsize
            for variable in variables
        )

    def abstract(self, variable: Any) -> jax.ShapeDtypeStruct:
        """Returns shape, type and sharding of a variable, to lower a function with."""
        shape = tuple(variable.shape)
        return jax.ShapeDtypeStruct(shape, variable.dtype, sharding=self.sharding_of(shape))

    def place(self, variable: Any) -> jax.Array:
        """Returns a Keras variable's value with its sharding; it is moved only once."""
        value, sharding = variable.value, self.sharding_of(variable.shape)
        if value.sharding == sharding:
            return value
        whole = to_numpy(value)
        variable.assign(
            jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])
        )
        return variable.value

    def share(self, local: NDArray[Any]) -> jax.Array:
        """Returns the global batch made of each host's rows, in host order."""
        return jax.make_array_from_process_local_data(self.batch, local)


def _mesh_shape(devices: int, batch_axis: int | None, model_axis: int) -> tuple[int, int]:
    if model_axis < 1 or devices % model_axis:
        divisors = [str(each) for each in range(1, devices + 1) if devices % each == 0]
        raise ConfigurationError(
            f"--model_axis must be one of {', '.join(divisors)}, which share {devices} devices out "
            f"evenly. Received: {model_axis}."
        )
    copies = devices // model_axis
    if batch_axis is not None and batch_axis != copies:
        hints = ["leave --batch_axis out", f"set it to {copies}"]
        if batch_axis > 0 and devices % batch_axis == 0:
            hints.append(f"set --model_axis={devices // batch_axis} with it")
        raise ConfigurationError(
            f"--batch_axis times --model_axis must be the number of devices, {devices}. "
            f"Received: {batch_axis} and {model_axis}. Use one of: {', '.join(hints)}."
        )
    return copies, model_axis


def _check_hosts(mesh: Mesh) -> None:
    for row in mesh.devices:
        hosts = {device.process_index for device in row}
        if len(hosts) > 1:
            local = mesh.devices.size // len({each.process_index for each in mesh.devices.flat})
            raise ConfigurationError(
                "--model_axis: devices that share a copy of the weights must be on one host. "
                f"Received {len(row)}, where a host has {local}."
            )

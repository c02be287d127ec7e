"""The JAX engine: `jax.sharding` over all devices of all hosts, on TPUs, GPUs and CPUs."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
import keras
import tensorflow as tf
from numpy.typing import NDArray

from trainers.data.pipeline import check_batch_size
from trainers.engines.engine import Batch
from trainers.engines.engine import Engine
from trainers.engines.engine import StepFunctions
from trainers.engines.engine import to_numpy
from trainers.engines.hosts import Hosts
from trainers.engines.jax_sharding import JaxLayout
from trainers.engines.jax_training import JaxTraining

# What a step reads of a batch; the 64-bit example numbers stay on the host.
ON_THE_DEVICE = ("image", "target", "label", "mask")


class JaxEngine(Engine):
    """Runs steps on a mesh of devices; a replica is a device."""

    name = "jax"

    def __init__(self, layout: JaxLayout, hosts: Hosts) -> None:
        self.layout = layout
        self.hosts = hosts
        self.num_replicas = layout.num_devices

    def describe(self) -> str:
        devices = [str(device) for device in self.layout.mesh.devices.flat]
        count = f"{len(devices)} device{'' if len(devices) == 1 else 's'}"
        sharing = self.layout.model_axis
        shared = f", {sharing} of them share the weights" if sharing > 1 else ""
        return f"JAX {jax.__version__}, {count}{shared}: {self.hosts.describe(devices)}"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def batches(self, make_dataset: Callable[..., tf.data.Dataset]) -> Iterator[Batch]:
        dataset = make_dataset(
            num_hosts=self.hosts.count, host_index=self.hosts.index, replicas_per_host=1
        )
        rows = dataset.element_spec["image"].shape[0] * self.hosts.count
        check_batch_size(rows, {"devices": self.num_replicas})
        return self._on_devices(dataset)

    def _on_devices(self, dataset: tf.data.Dataset) -> Iterator[Batch]:
        for batch in dataset.as_numpy_iterator():
            yield {name: self.layout.share(batch[name]) for name in ON_THE_DEVICE if name in batch}

    def training(self, step: StepFunctions) -> JaxTraining:
        return JaxTraining(step, self.layout)

    def evaluation(
        self,
        model: keras.Model,
        function: Callable[[Batch], Batch],
        *,
        per_example: bool = False,
    ) -> Callable[[Any], dict[str, NDArray[Any]]]:
        del per_example  # the batch is one array: sums and rows are whole either way
        jitted = self.jitted_evaluation(model, function)

        def evaluate(batch: Batch) -> dict[str, NDArray[Any]]:
            values = [self.layout.place(variable) for variable in model.variables]
            return {name: to_numpy(each) for name, each in jitted(values, batch).items()}

        return evaluate

    def jitted_evaluation(self, model: keras.Model, function: Callable[[Batch], Batch]) -> Any:
        """Returns a jitted function of the values of a model's variables and of a batch."""
        variables = model.variables

        def stateless(values: list[Any], batch: Batch) -> Batch:
            scope = keras.StatelessScope(list(zip(variables, values, strict=True)))
            with self.layout.in_force(), scope:
                return function(batch)

        return jax.jit(stateless, out_shardings=self.layout.replicated)

    def start_profile(self, directory: str) -> None:
        jax.profiler.start_trace(directory)

    def stop_profile(self) -> None:
        jax.profiler.stop_trace()

"""The TensorFlow engine: `tf.distribute` with a strategy for every kind of device."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from trainers.engines.engine import Batch
from trainers.engines.engine import Engine
from trainers.engines.engine import StepFunctions
from trainers.engines.tensorflow_strategy import hosts_of
from trainers.engines.tensorflow_training import TensorFlowTraining


class TensorFlowEngine(Engine):
    """Runs steps under a strategy of `make_strategy`; every replica has the whole model."""

    name = "tensorflow"

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self.hosts = hosts_of(strategy)
        self.num_replicas = strategy.num_replicas_in_sync

    def describe(self) -> str:
        kind = type(self.strategy).__name__
        for name in ("MultiWorkerMirroredStrategy", "TPUStrategy"):  # their classes' names differ
            if isinstance(self.strategy, getattr(tf.distribute, name)):
                kind = name
        replicas = f"{self.num_replicas} replica{'' if self.num_replicas == 1 else 's'}"
        devices = [str(device) for device in self.strategy.extended.worker_devices]
        return f"{kind}, {replicas}: {self.hosts.describe(devices)}"

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def batches(self, make_dataset: Callable[..., tf.data.Dataset]) -> Any:
        def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
            hosts = context.num_input_pipelines
            return make_dataset(
                num_hosts=hosts,
                host_index=context.input_pipeline_id,
                replicas_per_host=context.num_replicas_in_sync // hosts,
            )

        return self.strategy.distribute_datasets_from_function(of_host)

    def training(self, step: StepFunctions) -> TensorFlowTraining:
        return TensorFlowTraining(step, self.strategy)

    def evaluation(
        self,
        model: keras.Model,
        function: Callable[[Batch], Batch],
        *,
        per_example: bool = False,
    ) -> Callable[[Any], dict[str, NDArray[Any]]]:
        del model  # a graph reads the variables' current values

        def whole(part: Any) -> tf.Tensor:
            if per_example:
                return self.strategy.gather(part, axis=0)
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None)

        def distributed(batch: Any) -> dict[str, tf.Tensor]:
            parts = self.strategy.run(function, args=(batch,))
            return {name: whole(part) for name, part in parts.items()}

        compiled = tf.function(distributed)

        def evaluate(batch: Any) -> dict[str, NDArray[Any]]:
            return {name: part.numpy() for name, part in compiled(batch).items()}

        return evaluate

    def start_profile(self, directory: str) -> None:
        tf.profiler.experimental.start(directory)

    def stop_profile(self) -> None:
        tf.profiler.experimental.stop()

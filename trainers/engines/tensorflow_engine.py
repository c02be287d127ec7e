"""The TensorFlow engine: `tf.distribute` with a strategy for every kind of device."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from trainers.engines.engine import Batch
from trainers.engines.engine import Engine
from trainers.engines.engine import StepFunctions
from trainers.engines.tensorflow_strategy import describe_strategy
from trainers.engines.tensorflow_strategy import hosts_of
from trainers.engines.tensorflow_training import TensorFlowTraining

if TYPE_CHECKING:
    import keras


class TensorFlowEngine(Engine):
    """Runs steps under a strategy of `make_strategy`; every replica has the whole model."""

    name = "tensorflow"

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self.hosts = hosts_of(strategy)
        self.num_replicas = strategy.num_replicas_in_sync

    def describe(self) -> str:
        return describe_strategy(self.strategy)

    def scope(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.strategy.scope()
        return context

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
        model: "keras.Model",
        function: Callable[[Batch], Batch],
        *,
        per_example: bool = False,
    ) -> Callable[[Any], dict[str, NDArray[Any]]]:
        del model  # a graph reads the variables' current values

        def distributed(batch: Any) -> dict[str, tf.Tensor]:
            parts = self.strategy.run(function, args=(batch,))
            return {name: self._whole(part, per_example) for name, part in parts.items()}

        compiled = tf.function(distributed)

        def evaluate(batch: Any) -> dict[str, NDArray[Any]]:
            return {name: part.numpy() for name, part in compiled(batch).items()}

        return evaluate

    def start_profile(self, directory: str) -> None:
        tf.profiler.experimental.start(directory)

    def stop_profile(self) -> None:
        tf.profiler.experimental.stop()

    def _whole(self, part: Any, per_example: bool) -> tf.Tensor:
        if per_example:
            return self.strategy.gather(part, axis=0)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None)

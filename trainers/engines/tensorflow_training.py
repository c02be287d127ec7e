"""Training steps on TensorFlow: one compiled loop, a sum over the replicas in every step."""

import itertools
from typing import Any

import keras
import tensorflow as tf

from trainers.engines.engine import EXAMPLE_SUMS
from trainers.engines.engine import STEP_SUMS
from trainers.engines.engine import StepFunctions
from trainers.utils.errors import ConfigurationError


class TensorFlowTraining:
    """Runs the steps of a `StepFunctions` on every replica of a strategy."""

    def __init__(self, step: StepFunctions, strategy: tf.distribute.Strategy) -> None:
        replicas = strategy.num_replicas_in_sync
        if step.jit_compile and replicas > 1:
            # A function compiled by XLA cannot take the variables of several replicas.
            raise ConfigurationError(
                "jit_compile is for one replica. Received jit_compile=True on "
                f"{replicas} replicas. Set jit_compile=False."
            )
        if step.gradient_accumulation_steps > 1:
            _check_micro_batches(step.model, strategy, step.gradient_accumulation_steps)
        self.step = step
        self.strategy = strategy
        # A separate function only where XLA compiles it: inside one, replicas could not
        # exchange the statistics of batch norms.
        self._gradients: Any = self._replica_gradients
        if step.jit_compile:
            self._gradients = tf.function(self._replica_gradients, jit_compile=True)
        self._run = tf.function(self._loop)

    def run(self, batches: Any, first_step: int, num_steps: int) -> dict[str, float]:
        # A loop is compiled for each number of tokens, and runs the steps in a row that have it.
        # Not one loop with a branch for each: where replicas exchange values inside a branch
        # depends on the strategy, and a call costs little beside a step.
        steps = range(first_step, first_step + num_steps)
        parts = []
        for num_tokens, group in itertools.groupby(steps, self.step.num_tokens_at):
            first, *others = group
            count = tf.constant(1 + len(others), tf.int64)
            parts.append(self._run(batches, tf.constant(first, tf.int64), count, num_tokens))
        return {name: sum(float(part[name]) for part in parts) for name in STEP_SUMS}

    def whole(self, batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        images, targets = (
            tf.concat(self.strategy.experimental_local_results(batch[name]), axis=0)
            for name in ("image", "target")
        )
        return images, targets

    def gradients(self, images: tf.Tensor, targets: tf.Tensor, step: int) -> list[tf.Tensor]:
        self._seed_generators(tf.constant(step, tf.int64))
        return self._replica_gradients(images, targets, self.step.num_tokens_at(step))[0]

    def replica_step(
        self, batch: dict[str, tf.Tensor], step: tf.Tensor, num_tokens: int | None = None
    ) -> dict[str, tf.Tensor]:
        """Trains one replica on its share of a batch; to be called by `strategy.run`.

        Returns the sums over all replicas' examples, and the `gradient_norm` before clipping.
        """
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
        stream = step * replicas + replica
        gradients, sums = self._accumulated_gradients(batch, stream, num_tokens)
        if replicas > 1:
            # One call packs small tensors into few messages.
            gradients, sums = context.all_reduce(tf.distribute.ReduceOp.SUM, (gradients, sums))
        return {**sums, "gradient_norm": self.step.update(gradients)}

    def _loop(
        self,
        batches: Any,
        first_step: tf.Tensor,
        num_steps: tf.Tensor,
        num_tokens: int | None,
    ) -> dict[str, tf.Tensor]:
        def replica_step(batch: dict[str, tf.Tensor], step: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.replica_step(batch, step, num_tokens)

        # float64: an epoch's sum of losses keeps its digits.
        sums = {name: tf.constant(0.0, tf.float64) for name in STEP_SUMS}
        for offset in tf.range(num_steps):
            batch, wait = self._next(batches)
            step = first_step + offset
            parts = self.strategy.run(replica_step, args=(batch, step))
            # Already summed over the replicas: all of them hold the same values.
            parts = {
                name: self.strategy.experimental_local_results(part)[0]
                for name, part in parts.items()
            }
            parts["data_wait"] = wait
            sums = {name: sums[name] + tf.cast(parts[name], tf.float64) for name in STEP_SUMS}
        return sums

    def _next(self, batches: Any) -> tuple[Any, tf.Tensor]:
        """Returns the next batch and the seconds spent waiting for it."""
        start = tf.timestamp()
        with tf.control_dependencies([start]):
            batch = next(batches)
        arrived = self.strategy.experimental_local_results(batch["target"])
        with tf.control_dependencies(arrived):
            return batch, tf.timestamp() - start

    def _accumulated_gradients(
        self, batch: dict[str, tf.Tensor], stream: tf.Tensor, num_tokens: int | None
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns gradients and sums; no other replica or step has the `stream` of random masks."""
        count = self.step.gradient_accumulation_steps
        if count == 1:
            self._seed_generators(stream)
            return self._gradients(batch["image"], batch["target"], num_tokens)
        images, targets = _cut(batch["image"], count), _cut(batch["target"], count)
        variables = self.step.model.trainable_variables
        gradients = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        sums = {name: tf.constant(0.0) for name in EXAMPLE_SUMS}
        # A loop of the graph, unlike Python's, holds the activations of one part only.
        for index in tf.range(count, dtype=tf.int64):
            self._seed_generators(stream * count + index)
            more, more_sums = self._gradients(images[index], targets[index], num_tokens)
            gradients = [total + part for total, part in zip(gradients, more, strict=True)]
            sums = {name: total + more_sums[name] for name, total in sums.items()}
        return gradients, sums

    def _replica_gradients(
        self, images: tf.Tensor, targets: tf.Tensor, num_tokens: int | None
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss, sums = self.step.loss_and_sums(images, targets, num_tokens)
        variables = [variable.value for variable in self.step.model.trainable_variables]
        return tape.gradient(loss, variables), sums

    def _seed_generators(self, stream: tf.Tensor) -> None:
        for state, value in self.step.seeds(stream, "int64"):
            state.assign(tf.cast(value, state.dtype))


def _check_micro_batches(
    model: keras.Model, strategy: tf.distribute.Strategy, micro_batches: int
) -> None:
    """Refuses micro-batches where batch norms could not exchange their statistics.

    Mirrored replicas exchange values only in the outermost graph of a step, and micro-batches are a
    loop inside that graph. On TPUs, where we could not try it, the exchange is an operation in the
    replica's graph (XLA's sum over replicas), which a loop may hold.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    if any(variable.name == "moving_variance" for variable in model.non_trainable_variables):
        raise ConfigurationError(
            "gradient_accumulation_steps must be 1 on several replicas, for the batch norms of "
            f"{model.name} share their statistics. Received {micro_batches} on {replicas} "
            "replicas. Set gradient_accumulation_steps=1, or train on one replica with "
            "--strategy=one_device."
        )


def _cut(values: tf.Tensor, count: int) -> tf.Tensor:
    """Returns (count, B / count, ...) of (B, ...)."""
    return tf.reshape(values, (count, values.shape[0] // count, *values.shape[1:]))

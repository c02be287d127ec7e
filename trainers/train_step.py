"""One training step on the global batch, the same maths on any number of replicas."""

from typing import Any

import keras
import tensorflow as tf

from trainers.data.batch_size import check_batch_size
from trainers.data.normalization import normalize
from trainers.errors import ConfigurationError
from trainers.losses import Loss
from trainers.metrics import evaluation_sums
from trainers.optimization import clip_by_global_norm

# A generator is drawn from a few times a step at most; its counter goes up by one a
# draw, so this many counts keep the streams of two steps, replicas or parts apart.
_DRAWS_PER_STEP = 64


class TrainStep:
    """Runs steps inside one compiled loop.

    Each replica computes the sum of its losses over the **global** batch size, the
    gradients are summed over the replicas, clipped by their global norm and applied
    once. With gradient accumulation a replica computes that sum over one micro-batch
    after the other, which takes the memory of one; all else stays as it is. Dropout
    masks are a function of (seed, step, replica, micro-batch).

    Batch norms see the statistics of the global batch and move theirs once a step. With
    gradient accumulation they see each micro-batch by itself, and move with each.

    Args:
        model: The Keras model, built in the strategy's scope.
        optimizer: From `make_optimizer`, built.
        loss: Loss of each example.
        strategy: Where to run.
        batch_size: Global batch size.
        normalization: Name of the input normalisation, done on the device.
        global_clipnorm: Largest gradient norm; None or 0 does not clip.
        seed: Seed of the dropout masks.
        gradient_accumulation_steps: Micro-batches that each replica cuts its share of
            the batch into.
        jit_compile: Whether loss and gradients are compiled by XLA, on one replica;
            TPUs always compile.
        multi_label: Whether an example has any number of labels; then `correct` counts
            where the class of the largest logit is one of them.

    Raises:
        ConfigurationError: If `jit_compile` is asked for on several replicas, or
            micro-batches with batch norms are, or the batch cannot be cut into micro-batches
            of equal size.
    """

    def __init__(
        self,
        *,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: Loss,
        strategy: tf.distribute.Strategy,
        batch_size: int,
        normalization: str,
        global_clipnorm: float | None,
        seed: int,
        gradient_accumulation_steps: int = 1,
        jit_compile: bool = False,
        multi_label: bool = False,
    ) -> None:
        replicas = strategy.num_replicas_in_sync
        check_batch_size(
            batch_size,
            {"replicas": replicas, "gradient_accumulation_steps": gradient_accumulation_steps},
        )
        if jit_compile and replicas > 1:
            # Variables of several replicas do not go into a function compiled by XLA.
            raise ConfigurationError(
                "jit_compile is for one replica. Received jit_compile=True on "
                f"{replicas} replicas. Set jit_compile=False."
            )
        if gradient_accumulation_steps > 1:
            _check_micro_batches(model, strategy, gradient_accumulation_steps)
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.strategy = strategy
        self.batch_size = batch_size
        self.normalization = normalization
        self.global_clipnorm = global_clipnorm
        self.seed = seed
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.multi_label = multi_label
        self._seed_states = seed_states(model)
        # A function of its own only where XLA compiles it: inside of one, replicas could
        # not exchange the statistics of batch norms.
        self._gradients: Any = self._replica_gradients
        if jit_compile:
            self._gradients = tf.function(self._replica_gradients, jit_compile=True)
        self._run = tf.function(self._loop)

    def run(self, iterator: Any, first_step: int, num_steps: int) -> dict[str, float]:
        """Runs steps and returns their sums.

        Args:
            iterator: Of distributed batches `{"image", "target"}`.
            first_step: Number of the first step, from 0.
            num_steps: How many.

        Returns:
            Sums over the steps: `loss` and `correct` over examples, `num_examples`,
            `gradient_norm` over steps (before clipping), `data_wait` in seconds.
        """
        sums = self._run(
            iterator,
            tf.constant(first_step, tf.int64),
            tf.constant(num_steps, tf.int64),
        )
        return {name: float(value) for name, value in sums.items()}

    def replica_step(self, batch: dict[str, tf.Tensor], step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Trains one replica for a step; to be called by `strategy.run`.

        Args:
            batch: The replica's share: `image`, uint8 (B, H, W, 3) or of clips
                (B, T, H, W, 3), and `target`, float32 (B, num_classes).
            step: Number of the step, a scalar of int64.

        Returns:
            Sums over all replicas' examples, scalars: `loss`, `correct`, `num_examples`; and
            `gradient_norm`, before clipping.
        """
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
        gradients, sums = self._accumulated_gradients(batch, step * replicas + replica)
        if replicas > 1:
            # In one call, which packs what is small into few messages.
            gradients, sums = context.all_reduce(tf.distribute.ReduceOp.SUM, (gradients, sums))
        gradients, norm = clip_by_global_norm(gradients, self.global_clipnorm)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return {**sums, "gradient_norm": norm}

    def _loop(
        self, iterator: Any, first_step: tf.Tensor, num_steps: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        # float64: an epoch's sum of losses keeps its digits.
        names = ("loss", "correct", "num_examples", "gradient_norm", "data_wait")
        sums = {name: tf.constant(0.0, tf.float64) for name in names}
        for offset in tf.range(num_steps):
            batch, wait = self._next(iterator)
            step = first_step + offset
            parts = self.strategy.run(self.replica_step, args=(batch, step))
            # Summed in the replicas already: all of them hold the same.
            parts = {
                name: self.strategy.experimental_local_results(part)[0]
                for name, part in parts.items()
            }
            parts["data_wait"] = wait
            sums = {name: sums[name] + tf.cast(parts[name], tf.float64) for name in names}
        return sums

    def _next(self, iterator: Any) -> tuple[Any, tf.Tensor]:
        """Returns the next batch and the seconds that it was waited for."""
        start = tf.timestamp()
        with tf.control_dependencies([start]):
            batch = next(iterator)
        arrived = self.strategy.experimental_local_results(batch["target"])
        with tf.control_dependencies(arrived):
            return batch, tf.timestamp() - start

    def _accumulated_gradients(
        self, batch: dict[str, tf.Tensor], stream: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns gradients and sums of a replica's share of the batch.

        Args:
            batch: `image` and `target`.
            stream: A number that no other replica or step has, for the random masks.
        """
        count = self.gradient_accumulation_steps
        if count == 1:
            self._seed_generators(stream)
            return self._gradients(batch["image"], batch["target"])
        images, targets = _cut(batch["image"], count), _cut(batch["target"], count)
        variables = self.model.trainable_variables
        gradients = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        sums = {name: tf.constant(0.0) for name in ("loss", "correct", "num_examples")}
        # A loop of the graph, unlike Python's, holds the activations of one part only.
        for index in tf.range(count, dtype=tf.int64):
            self._seed_generators(stream * count + index)
            more, more_sums = self._gradients(images[index], targets[index])
            gradients = [total + part for total, part in zip(gradients, more, strict=True)]
            sums = {name: total + more_sums[name] for name, total in sums.items()}
        return gradients, sums

    def _replica_gradients(
        self, images: tf.Tensor, targets: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = self.model(normalize(images, self.normalization), training=True)
            losses = self.loss(targets, logits)
            loss = tf.reduce_sum(losses) / self.batch_size
        variables = [variable.value for variable in self.model.trainable_variables]
        largest = tf.argmax(targets, axis=-1, output_type=tf.int32)
        labels = targets if self.multi_label else largest
        sums = evaluation_sums(logits, labels, losses, tf.ones_like(losses))
        # All of them: an example without a label has a loss all the same.
        sums["loss"] = tf.reduce_sum(losses)
        sums["num_examples"] = tf.cast(tf.size(losses), tf.float32)
        sums.pop("top5_correct", None)
        return tape.gradient(loss, variables), sums

    def _seed_generators(self, stream: tf.Tensor) -> None:
        counter = stream * _DRAWS_PER_STEP
        for index, state in enumerate(self._seed_states):
            base = tf.constant(self.seed * 1_000_003 + index, tf.int64)
            state.assign(tf.cast(tf.stack([base, counter]), state.dtype))


def seed_states(model: keras.Model) -> list[Any]:
    """Returns the state variables of a model's random generators, in order."""
    return [
        variable
        for variable in model.non_trainable_variables
        if variable.name == "seed_generator_state"
    ]


def _check_micro_batches(
    model: keras.Model, strategy: tf.distribute.Strategy, micro_batches: int
) -> None:
    """Refuses micro-batches where batch norms could not exchange their statistics.

    Mirrored replicas meet in the outermost graph of a step only, and micro-batches are a
    loop inside of it. On TPUs, where we could not try, an exchange is an operation of the
    replica's own graph, XLA's sum over replicas, which a loop may hold.
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

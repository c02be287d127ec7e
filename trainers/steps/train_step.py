"""Defines one training step on the global batch, the same maths on any engine and device count."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.models.elastic import set_num_tokens
from trainers.data.pipeline import check_batch_size
from trainers.data.preprocessing.normalization import normalize
from trainers.engines.engine import Engine
from trainers.steps.losses import Loss
from trainers.steps.metrics import evaluation_sums
from trainers.steps.optimizer import clip_by_global_norm
from trainers.utils.errors import TrainingError
from trainers.utils.errors import first_line

# A step draws from a generator a few times at most, and each draw adds one to its counter.
# So this many counts keep the streams of two steps, replicas or parts apart.
_DRAWS_PER_STEP = 64


@dataclasses.dataclass(kw_only=True, eq=False)
class TrainStep:
    """The maths of a step, compiled and run by an engine.

    Each replica computes the sum of its losses over the **global** batch size. The gradients are
    summed over the replicas, clipped by their global norm and applied once. With gradient
    accumulation a replica computes that sum over one micro-batch after the other, which takes the
    memory of one; nothing else changes. Dropout masks are a function of (seed, step, micro-batch),
    on TensorFlow also of the replica.

    Batch norms use the statistics of the global batch and update their moving averages once per
    step. With gradient accumulation they use and update them for each micro-batch separately.

    Args:
        model, optimizer: Built in the engine's scope.
        global_clipnorm: Largest gradient norm; None or 0 does not clip.
        jit_compile: Whether XLA compiles loss and gradients on TensorFlow, on one replica. TPUs and
            JAX always compile.
        multi_label: Whether an example has any number of labels; then `correct` counts where the
            class of the largest logit is one of them.
        elastic_tokens: Numbers of learned tokens, ascending, the last one that of the model. Each
            step works with one of them, a function of (seed, step), the same on all replicas and
            hosts and for all micro-batches. (): always all.

    Attributes:
        models: The model, and for each number below the largest one that shares its weights.
        has_compiled: Whether a step was compiled in the last `run`.

    Raises:
        ConfigurationError: If the batch cannot be cut into micro-batches of equal size, or the
            engine cannot run the step.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss: Loss
    engine: Engine
    batch_size: int
    normalization: str
    global_clipnorm: float | None
    seed: int
    gradient_accumulation_steps: int = 1
    jit_compile: bool = False
    multi_label: bool = False
    elastic_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_batch_size(
            self.batch_size,
            {
                "replicas": self.engine.num_replicas,
                "gradient_accumulation_steps": self.gradient_accumulation_steps,
            },
        )
        self._seed_states = [
            variable
            for variable in self.model.non_trainable_variables
            if variable.name == "seed_generator_state"
        ]
        self.models: dict[int | None, keras.Model] = {None: self.model}
        with self.engine.scope():
            for num_tokens in self.elastic_tokens[:-1]:
                self.models[num_tokens] = set_num_tokens(self.model, num_tokens)
        self.has_compiled = False
        self._compiled_for: set[int | None] = set()  # the keys of `models`
        #: The engine's `Training`.
        self.compiled: Any = self.engine.training(self)

    def run(self, batches: Iterator[Any], first_step: int, num_steps: int) -> dict[str, float]:
        """Runs steps and returns their sums.

        Args:
            batches: Distributed batches, `{"image", "target"}`.
            first_step: Counted from 0.

        Returns:
            Sums over the steps: `loss` and `correct` over examples, `num_examples`, `gradient_norm`
            over steps (before clipping), `data_wait` in seconds.

        Raises:
            TrainingError: If a device does not have enough memory.
        """
        try:
            sums: dict[str, float] = self.compiled.run(batches, first_step, num_steps)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            reason = first_line(error)
            raise TrainingError(
                f"A training step needs more memory than the device has ({reason}). Lower "
                "batch_size, or set gradient_accumulation_steps=2, model.remat=True or "
                "dtype_policy='mixed_bfloat16'; --dry_run tells what a step takes."
            ) from error
        used = {*map(self.num_tokens_at, range(first_step, first_step + num_steps))}
        self.has_compiled = not used <= self._compiled_for
        self._compiled_for |= used
        return sums

    def num_tokens_at(self, step: int) -> int | None:
        """Returns the learned tokens of a step, counted from 0; None for all of the model."""
        if not self.elastic_tokens:
            return None
        # The only generator of NumPy whose stream is promised never to change.
        sequence = np.random.SeedSequence(self.seed % 2**64, spawn_key=(step,))
        number = int(sequence.generate_state(1, np.uint64)[0])
        num_tokens = self.elastic_tokens[number % len(self.elastic_tokens)]
        return num_tokens if num_tokens in self.models else None

    def loss_and_sums(
        self, images: Any, targets: Any, num_tokens: int | None
    ) -> tuple[Any, dict[str, Any]]:
        """Returns the loss to differentiate, and sums over these examples, float32 scalars.

        The first is the sum of the losses over the global batch size; the others are `loss`,
        `correct` and `num_examples`. Images are uint8 (B, H, W, 3), or of clips (B, T, H, W, 3);
        targets float32 (B, num_classes). `num_tokens` is a key of `models`.
        """
        logits = self.models[num_tokens](self.inputs(images), training=True)
        losses = self.losses(targets, logits)
        labels = targets if self.multi_label else ops.argmax(targets, axis=-1)
        correct = evaluation_sums(logits, labels, losses, ops.ones_like(losses))["correct"]
        # Over all examples: one without a label has a loss as well.
        count = ops.sum(ops.ones_like(losses))
        sums = {"loss": ops.sum(losses), "correct": correct, "num_examples": count}
        return ops.sum(losses) / self.batch_size, sums

    def inputs(self, images: Any) -> Any:
        """Returns the model's inputs: normalised images, float32, of the same shape."""
        return normalize(images, self.normalization)

    def losses(self, targets: Any, logits: Any) -> Any:
        """Returns the loss of each example, float32 (B,)."""
        return self.loss(targets, logits)

    def update(self, gradients: list[Any]) -> Any:
        """Clips and applies the global batch's gradients; returns their norm before clipping."""
        gradients, norm = clip_by_global_norm(gradients, self.global_clipnorm)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return norm

    def seeds(self, stream: Any, dtype: str) -> list[tuple[keras.Variable, Any]]:
        """Returns the states that the model's random generators start a pass with.

        Args:
            stream: A number that no other pass has, a scalar tensor.
            dtype: Of `stream`, an integer type; sums and products may wrap around.

        Returns:
            State variables and their values, (2,) of that type.
        """
        counter = stream * _DRAWS_PER_STEP
        values = []
        for index, state in enumerate(self._seed_states):
            base = self.seed * 1_000_003 + index
            number = np.array(base % 2**32 if dtype == "uint32" else base, dtype)
            values.append((state, ops.stack([ops.convert_to_tensor(number), counter])))
        return values


def _is_out_of_memory(error: Exception) -> bool:
    # TensorFlow has an error class for it, JAX a status in the message.
    is_tensorflow = type(error).__name__ == "ResourceExhaustedError"
    return is_tensorflow or str(error).startswith("RESOURCE_EXHAUSTED")

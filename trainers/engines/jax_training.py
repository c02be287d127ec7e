"""Training steps on JAX: one jitted function of the state and the global batch."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from trainers.engines.engine import EXAMPLE_SUMS
from trainers.engines.engine import STEP_SUMS
from trainers.engines.engine import StepFunctions
from trainers.engines.jax_sharding import BOTH_AXES
from trainers.engines.jax_sharding import JaxLayout

# Steps in flight: enough that the device never waits for the host, and few enough to bound
# the batches that lie on it.
_STEPS_AHEAD = 2

Values = list[Any]
Sums = dict[str, Any]


class JaxTraining:
    """Runs the steps of a `StepFunctions` on all devices of a layout.

    The batch is sharded over the devices and the compiler partitions the program. Means, norms and
    dropout masks are therefore those of the global batch, without explicit collectives. The state
    is donated: a step takes no second copy of it.
    """

    def __init__(self, step: StepFunctions, layout: JaxLayout) -> None:
        self.step = step
        self.layout = layout
        seeds = {id(state) for state, _ in step.seeds(0, "uint32")}
        self._trainable = list(step.model.trainable_variables)
        self._optimizer = list(step.optimizer.variables)
        # What a pass updates: statistics of batch norms, not the generators' states.
        others = step.model.non_trainable_variables
        self._statistics = [variable for variable in others if id(variable) not in seeds]
        self._variables = [self._trainable, self._statistics, self._optimizer]
        shardings = [
            [layout.sharding_of(variable.shape) for variable in group] for group in self._variables
        ]
        # Compiled once for each number of tokens.
        self._jitted = jax.jit(
            self._one_step,
            static_argnums=3,
            donate_argnums=0,
            out_shardings=(shardings, layout.replicated),
        )

    def run(self, batches: Iterator[Any], first_step: int, num_steps: int) -> dict[str, float]:
        state = [[self.layout.place(each) for each in group] for group in self._variables]
        under_way: list[Sums] = []
        # float64: an epoch's sum of losses keeps its digits.
        totals = dict.fromkeys(STEP_SUMS, 0.0)
        try:
            for number in range(first_step, first_step + num_steps):
                start = time.monotonic()
                batch = next(batches)
                # While the device is busy, waiting for data costs nothing.
                if not under_way or under_way[-1]["loss"].is_ready():
                    totals["data_wait"] += time.monotonic() - start
                inputs = {name: batch[name] for name in ("image", "target")}
                num_tokens = self.step.num_tokens_at(number)
                state, sums = self._jitted(state, inputs, np.uint32(number), num_tokens)
                under_way.append(sums)
                if len(under_way) > _STEPS_AHEAD:
                    _add(totals, under_way.pop(0))
        finally:
            # The old arrays were donated; an unreadable batch must not lose the new ones.
            for variables, values in zip(self._variables, state, strict=True):
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
        for sums in under_way:
            _add(totals, sums)
        return totals

    def whole(self, batch: Any) -> tuple[Any, Any]:
        return batch["image"], batch["target"]

    def gradients(self, images: Any, targets: Any, step: int) -> Values:
        trainable, statistics = (
            [variable.value for variable in group] for group in (self._trainable, self._statistics)
        )
        num_tokens = self.step.num_tokens_at(step)
        return self._part(trainable, statistics, images, targets, np.uint32(step), num_tokens)[0]

    def lower(self, batch: dict[str, jax.ShapeDtypeStruct]) -> jax.stages.Lowered:
        """Returns the step with all tokens, the dearest, lowered for abstract arrays.

        `batch` is global, with its shardings.
        """
        state = [[self.layout.abstract(each) for each in group] for group in self._variables]
        number = jax.ShapeDtypeStruct((), jnp.uint32, sharding=self.layout.replicated)
        return self._jitted.lower(state, batch, number, None)

    def _one_step(
        self, state: list[Values], batch: dict[str, Any], number: Any, num_tokens: int | None
    ) -> tuple[list[Values], Sums]:
        trainable, statistics, optimizer = state
        gradients, sums, statistics = self._gradients(
            trainable, statistics, batch, number, num_tokens
        )
        places = [self.layout.sharding_of(variable.shape) for variable in self._trainable]
        gradients = jax.lax.with_sharding_constraint(gradients, places)
        before = [
            *zip(self._trainable, trainable, strict=True),
            *zip(self._optimizer, optimizer, strict=True),
        ]
        with keras.StatelessScope(before) as scope:
            sums["gradient_norm"] = self.step.update(gradients)
        trainable = [scope.get_current_value(variable) for variable in self._trainable]
        optimizer = [scope.get_current_value(variable) for variable in self._optimizer]
        return [trainable, statistics, optimizer], sums

    def _gradients(
        self,
        trainable: Values,
        statistics: Values,
        batch: dict[str, Any],
        number: Any,
        num_tokens: int | None,
    ) -> tuple[Values, Sums, Values]:
        """Returns gradients and sums of the global batch, and the statistics after it."""
        count = self.step.gradient_accumulation_steps
        if count == 1:
            inputs = (batch["image"], batch["target"])
            return self._part(trainable, statistics, *inputs, number, num_tokens)
        images, targets = (self._cut(batch[name], count) for name in ("image", "target"))

        def add(carry: Any, part: Any) -> Any:
            gradients, sums, statistics = carry
            index, images, targets = part
            stream = number * count + index
            more, more_sums, statistics = self._part(
                trainable, statistics, images, targets, stream, num_tokens
            )
            total = jax.tree.map(jnp.add, (gradients, sums), (more, more_sums))
            return (*total, statistics), None

        zeros = [jnp.zeros_like(value) for value in trainable]
        sums = {name: jnp.zeros(()) for name in EXAMPLE_SUMS}
        parts = (jnp.arange(count, dtype=jnp.uint32), images, targets)
        carry, _ = jax.lax.scan(add, (zeros, sums, statistics), parts)
        return carry

    def _part(
        self,
        trainable: Values,
        statistics: Values,
        images: Any,
        targets: Any,
        stream: Any,
        num_tokens: int | None,
    ) -> tuple[Values, Sums, Values]:
        """Returns gradients, sums and statistics of one pass."""

        def loss(trainable: Values) -> Any:
            values = [
                *zip(self._trainable, trainable, strict=True),
                *zip(self._statistics, statistics, strict=True),
                *self.step.seeds(stream, "uint32"),
            ]
            with self.layout.in_force(), keras.StatelessScope(values) as scope:
                loss, sums = self.step.loss_and_sums(images, targets, num_tokens)
            moved = [scope.get_current_value(variable) for variable in self._statistics]
            return loss, (sums, moved)

        gradients, (sums, moved) = jax.grad(loss, has_aux=True)(trainable)
        return gradients, sums, moved

    def _cut(self, values: Any, count: int) -> Any:
        """Returns (count, B / count, ...) of (B, ...), each part with rows of every device."""
        devices, rows = self.layout.num_devices, values.shape[0]
        parts = values.reshape((devices, count, rows // devices // count, *values.shape[1:]))
        parts = parts.swapaxes(0, 1).reshape((count, rows // count, *values.shape[1:]))
        place = NamedSharding(self.layout.mesh, PartitionSpec(None, BOTH_AXES))
        return jax.lax.with_sharding_constraint(parts, place)


def _add(totals: dict[str, float], sums: Sums) -> None:
    for name, value in sums.items():
        totals[name] += float(value)

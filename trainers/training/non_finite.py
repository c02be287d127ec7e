"""Finds the step and the tensor at which a training became NaN or infinite.

It goes back to the newest checkpoint, or to the beginning, and takes the same steps again, since
only the sums of a block of steps come back. The tensors of the first bad step are checked in turn.
"""

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.graph import graph_calls
from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.state import load_state
from trainers.checkpointing.state import state_arrays
from trainers.checkpointing.store import CheckpointStore
from trainers.engines.engine import to_numpy
from trainers.steps.train_step import TrainStep
from trainers.utils.errors import DivergedError
from trainers.utils.errors import TrainingError
from trainers.utils.reporting import log_to_stderr

#: Called with `start_step`, the steps done; returns the batches of those after them.
Batches = Callable[..., Iterator[Any]]

_HINT = (
    "Lower optimizer.learning_rate, or set optimizer.global_clipnorm; the last checkpoint is "
    "untouched."
)


@dataclasses.dataclass(frozen=True)
class Replay:
    """Repeats the steps of a training, to find where it diverged.

    Args:
        make_fresh: Returns model and optimizer as they are at the beginning.
        steps_per_loop: Steps of a block, at most.
        is_stopped: Whether the user has asked to stop.
    """

    train_step: TrainStep
    batches: Batches
    store: CheckpointStore
    make_fresh: Callable[[], tuple[keras.Model, keras.optimizers.Optimizer]]
    steps_per_loop: int
    is_stopped: Callable[[], bool]

    @contextmanager
    def explain(self, step: int, num_steps: int) -> Iterator[None]:
        """Turns a `DivergedError` of a block into a TrainingError that names step and tensor.

        `step` is the steps done before the block, `num_steps` its length.
        """
        try:
            yield
        except DivergedError as error:
            last = step + num_steps
            where = f"step {last}" if num_steps == 1 else f"one of the steps {step + 1} to {last}"
            found = None
            if self.train_step.engine.hosts.count == 1:
                log_to_stderr(
                    f"{error} at {where}; taking the steps since the last checkpoint again, to "
                    "find out where it begins (Ctrl-C leaves this out) ..."
                )
                found = self._find(last)
            raise TrainingError(f"{error} at {found or where}. {_HINT}") from None

    def _find(self, last: int) -> str | None:
        """Returns the number of the first bad step, from 1, and the first bad tensor in it."""
        step, size = self._restore(), self.steps_per_loop
        batches = self.batches(start_step=step)
        while step < last and not self.is_stopped():
            count = min(size, last - step)
            before = state_arrays(self.train_step.model, self.train_step.optimizer)
            sums = self.train_step.run(batches, step, count)
            if all(map(math.isfinite, sums.values())):
                step += count
                continue
            load_state(before, self.train_step.model, self.train_step.optimizer)
            if count == 1:
                batch = next(self.batches(start_step=step))
                tensor = _first_bad_tensor(self.train_step, batch, step)
                return f"step {step + 1}; {tensor}"
            size, batches = 1, self.batches(start_step=step)
        return None

    def _restore(self) -> int:
        """Goes back to the newest checkpoint, or to the beginning; returns the steps done."""
        model, optimizer = self.train_step.model, self.train_step.optimizer
        found = self.store.load_newest()
        if found is not None:
            load_state(found[1], model, optimizer)
            return found[0]
        for old, new in zip((model, optimizer), self.make_fresh(), strict=True):
            for variable, value in zip(old.variables, new.variables, strict=True):
                variable.assign(to_numpy(value))
        return 0


def check_finite(arrays: Arrays, step: int) -> None:
    """Raises a TrainingError if an array of a checkpoint is not finite: no run could resume."""
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise TrainingError(
                f"The training has diverged: {name} is not finite after step {step}, so it is "
                f"not saved. {_HINT}"
            )


def _first_bad_tensor(train_step: TrainStep, batch: Any, step: int) -> str:
    """Returns the name of the first non-finite tensor of the step after `step`, not yet done."""
    for name, value in _tensors(train_step, batch, step):
        if not np.isfinite(value).all():
            kind = "NaN" if np.isnan(value).any() else "infinity"
            return f"the first tensor with {kind} in it is {name}"
    return "no tensor is, when the step is taken again operation by operation"


def _tensors(train_step: TrainStep, batch: Any, step: int) -> Iterator[tuple[str, Any]]:
    """Yields the tensors of a step in the order in which they are computed."""
    for variable in train_step.model.variables:
        yield f"the weight {variable.path}, before the step", to_numpy(variable)
    images, targets = train_step.compiled.whole(batch)
    yield "the targets", ops.convert_to_numpy(targets)
    with keras.StatelessScope(train_step.seeds(step, "uint32")):
        inputs = train_step.inputs(images)
        yield "the normalised input", _numpy(inputs)
        model = train_step.models[train_step.num_tokens_at(step)]
        for layer, output in _layer_outputs(model, inputs):
            yield f"the output of the layer {layer}", _numpy(output)
            logits = output
        losses = train_step.losses(targets, logits)
    yield "the loss", _numpy(losses)
    gradients = train_step.compiled.gradients(images, targets, step)
    variables = train_step.model.trainable_variables
    # Backwards, as they are computed.
    for variable, gradient in reversed(list(zip(variables, gradients, strict=True))):
        yield f"the gradient of {variable.path}", _numpy(gradient)


def _layer_outputs(model: keras.Model, inputs: Any) -> Iterator[tuple[str, Any]]:
    """Yields the output of each layer of a functional model, in order, in training mode."""
    # By calls: the output of a layer that several models share is that of the first one.
    calls = graph_calls(functional_graph(model, "The search for the first NaN"))
    outputs = [node.outputs for node in calls]
    found = keras.Model(model.inputs, outputs)(inputs, training=True)
    for node, tensors in zip(calls, found, strict=True):
        for each in tensors:
            yield node.operation.name, each


def _numpy(value: Any) -> Any:
    # NumPy has no bfloat16.
    return ops.convert_to_numpy(ops.cast(value, "float32"))

"""Finds the step and the tensor at which a training became NaN or infinite.

Steps run in blocks, and only a block's sums come back. When one of them is not finite, the training
goes back to its newest checkpoint, or to its beginning, and takes the same steps again: their data
and random numbers are functions of the seed and the step. It stops at the first bad step, whose
tensors are then checked one by one. While all goes well this costs nothing.
"""

import math
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.state import load_state
from trainers.checkpointing.state import state_arrays
from trainers.engines.arrays import to_numpy
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


class Replay:
    """Repeats the steps of a training, to find where it diverged.

    Args:
        train_step: Runs the steps.
        batches: Called with `start_step`, the steps done; returns the batches after them.
        restore: Puts model and optimizer back to the newest checkpoint, or to the beginning, and
            returns the steps done until there.
        steps_per_loop: Steps of a block, at most.
        is_stopped: Whether the user has asked to stop.
    """

    def __init__(
        self,
        train_step: TrainStep,
        batches: Batches,
        restore: Callable[[], int],
        steps_per_loop: int,
        is_stopped: Callable[[], bool],
    ) -> None:
        self.train_step = train_step
        self.batches = batches
        self.restore = restore
        self.steps_per_loop = steps_per_loop
        self.is_stopped = is_stopped

    @contextmanager
    def explain(self, step: int, num_steps: int) -> Iterator[None]:
        """Reports at which step and tensor the block inside has diverged.

        Args:
            step: Steps done before the block.
            num_steps: Steps of the block.

        Raises:
            TrainingError: In place of a `DivergedError`.
        """
        try:
            yield
        except DivergedError as error:
            last = step + num_steps
            where = f"step {last}" if num_steps == 1 else f"one of the steps {step + 1} to {last}"
            found = None
            if self.train_step.is_on_one_host:
                log_to_stderr(
                    f"{error} at {where}; taking the steps since the last checkpoint again, to "
                    "find out where it begins (Ctrl-C leaves this out) ..."
                )
                found = self._find(last)
            raise TrainingError(_message(str(error), where, found)) from None

    def _find(self, last: int) -> tuple[int, str] | None:
        """Returns the number of the first bad step, from 1, and the first bad tensor in it."""
        step, size = self.restore(), self.steps_per_loop
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
                return step + 1, first_bad_tensor(
                    self.train_step, next(self.batches(start_step=step)), step
                )
            size, batches = 1, self.batches(start_step=step)
        return None


def check_finite(arrays: Arrays, step: int) -> None:
    """Checks that a checkpoint's arrays are finite: no run could resume from it otherwise.

    Raises:
        TrainingError: If an array is not finite after `step` steps; it names the first.
    """
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise TrainingError(
                f"The training has diverged: {name} is not finite after step {step}, so it is "
                f"not saved. {_HINT}"
            )


def first_bad_tensor(train_step: TrainStep, batch: Any, step: int) -> str:
    """Returns the name of the first non-finite tensor of a step.

    The model and the optimizer are as before the step, when `step` steps were done.
    """
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
        for layer, output in _layer_outputs(train_step.model, inputs):
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
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    outputs = [layer.output for layer in layers]
    found = keras.Model(model.inputs, outputs)(inputs, training=True)
    for layer, output in zip(layers, found, strict=True):
        for each in keras.tree.flatten(output):
            yield layer.name, each


def _numpy(value: Any) -> Any:
    # NumPy has no bfloat16.
    return ops.convert_to_numpy(ops.cast(value, "float32"))


def _message(what: str, where: str, found: tuple[int, str] | None) -> str:
    if found is None:
        return f"{what} at {where}. {_HINT}"
    step, tensor = found
    return f"{what} at step {step}; {tensor}. {_HINT}"

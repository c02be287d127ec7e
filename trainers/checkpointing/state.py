"""Names everything that the next step reads as arrays of a checkpoint, and puts it back."""

import keras
import numpy as np

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.store import CheckpointStore
from trainers.engines.engine import to_numpy
from trainers.steps.train_step import TrainStep
from trainers.utils.errors import ConfigurationError

_WEIGHTS = "model/"
_SLOTS = "optimizer/"


def training_arrays(train_step: TrainStep, log_arrays: Arrays, step: int) -> Arrays:
    """Returns everything that a run needs to resume as if it had never stopped.

    It is the weights and the optimizer, the sums of the training row being filled (`log_arrays`),
    and the seed and the step, which determine the order of the data and all random numbers.
    """
    # 64 bits each: a seed is an unsigned number of up to 32 bits.
    numbers = {"random/seed": train_step.seed, "random/step": step}
    random = {name: np.array(number, np.int64) for name, number in numbers.items()}
    return {**state_arrays(train_step.model, train_step.optimizer), **log_arrays, **random}


def state_arrays(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Arrays:
    """Returns weights and optimizer state (with moving averages and the step count).

    Random generators are not among them: their state is set from the seed and the step before
    every step.
    """
    variables = _named_variables(model, optimizer)
    # Copies: they are written while the next steps change the variables.
    return {name: to_numpy(variable) for name, variable in variables.items()}


def load_state(arrays: Arrays, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Puts arrays of `state_arrays` back, and leaves those of the log alone.

    Raises:
        ConfigurationError: If they belong to another model or optimizer; nothing is changed then.
    """
    variables = _named_variables(model, optimizer)
    arrays = {n: array for n, array in arrays.items() if n.startswith((_WEIGHTS, _SLOTS))}
    different = sorted(variables.keys() ^ arrays.keys()) or [
        name for name, value in arrays.items() if value.shape != variables[name].shape
    ]
    if different:
        raise ConfigurationError(
            "The checkpoint in the work directory belongs to another model or optimizer: "
            f"{len(different)} arrays differ, such as {different[0]!r}. Use a new "
            "--workdir, or the configuration that this one was started with."
        )
    for name, value in arrays.items():
        variables[name].assign(value)


def resume(
    store: CheckpointStore,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    total_steps: int,
) -> tuple[int, Arrays]:
    """Loads the newest valid checkpoint; returns its step and arrays, 0 and {} without one.

    Raises:
        ConfigurationError: If it is of another model or beyond the end of the training.
    """
    found = store.load_newest()
    if found is None:
        return 0, {}
    step, arrays = found
    if step > total_steps:
        raise ConfigurationError(
            f"The work directory is already at step {step}, beyond the {total_steps} steps "
            "of this configuration. Ask for a longer training, or use a new --workdir."
        )
    load_state(arrays, model, optimizer)
    print(f"resuming at step {step}", flush=True)
    return step, arrays


def _named_variables(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> dict[str, keras.Variable]:
    weights = {
        f"{_WEIGHTS}{variable.path}": variable
        for variable in model.variables
        if variable.name != "seed_generator_state"
    }
    # Optimizer slots are in a fixed order; their paths need not be unique.
    slots = {
        f"{_SLOTS}{index:05d}_{variable.name}": variable
        for index, variable in enumerate(optimizer.variables)
    }
    return {**weights, **slots}

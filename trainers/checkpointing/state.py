"""Collects everything that the next step reads, as named arrays for a checkpoint."""

import keras
import numpy as np

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.engines.arrays import to_numpy
from trainers.utils.errors import ConfigurationError

_WEIGHTS = "model/"
_SLOTS = "optimizer/"


def training_arrays(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    log_arrays: Arrays,
    *,
    seed: int,
    step: int,
) -> Arrays:
    """Returns everything that a run needs to resume as if it had never stopped.

    It is the weights and the optimizer, the sums of the training row being filled (`log_arrays`),
    and the seed and the step, which determine the order of the data and all random numbers.
    """
    # 64 bits each: a seed is an unsigned number of up to 32 bits.
    random = {"random/seed": np.array(seed, np.int64), "random/step": np.array(step, np.int64)}
    return {**state_arrays(model, optimizer), **log_arrays, **random}


def state_arrays(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Arrays:
    """Returns weights and optimizer state (with moving averages and the step count).

    Random generators are not among them: their state is set from the seed and the
    step before every step.
    """
    variables = _named_variables(model, optimizer)
    # Copies: they are written while the next steps change the variables.
    return {name: to_numpy(variable) for name, variable in variables.items()}


def load_state(arrays: Arrays, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Puts arrays of `state_arrays` back, and leaves those of the log alone.

    Raises:
        ConfigurationError: If they belong to another model or optimizer; nothing is
            changed then.
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

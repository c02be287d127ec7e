"""Everything that the next step reads, as named arrays."""

import keras
import numpy as np

from trainers.checkpointing import Arrays
from trainers.errors import ConfigurationError


def state_arrays(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Arrays:
    """Returns weights and optimizer state (with moving averages and the step count).

    Random generators are not among them: their state is set from the seed and the
    step before every step.
    """
    variables = _named_variables(model, optimizer)
    return {name: np.asarray(variable.numpy()) for name, variable in variables.items()}


def load_state(arrays: Arrays, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Puts arrays of `state_arrays` back.

    Raises:
        ConfigurationError: If they belong to another model or optimizer; nothing is
            changed then.
    """
    variables = _named_variables(model, optimizer)
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
        f"model/{variable.path}": variable
        for variable in model.variables
        if variable.name != "seed_generator_state"
    }
    # Optimizer slots are in a fixed order; their paths need not be unique.
    slots = {
        f"optimizer/{index:05d}_{variable.name}": variable
        for index, variable in enumerate(optimizer.variables)
    }
    return {**weights, **slots}

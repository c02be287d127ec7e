"""Resumes a training from its newest valid checkpoint, or starts it."""

from collections.abc import Callable

import keras

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.state import load_state
from trainers.checkpointing.store import CheckpointStore
from trainers.engines.arrays import to_numpy
from trainers.utils.errors import ConfigurationError


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


def restore(
    store: CheckpointStore,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    make_fresh: Callable[[], tuple[keras.Model, keras.optimizers.Optimizer]],
) -> int:
    """Puts a training back to its newest checkpoint, or to its beginning; returns the steps done.

    `make_fresh` returns model and optimizer as they are at the beginning.
    """
    found = store.load_newest()
    if found is not None:
        load_state(found[1], model, optimizer)
        return found[0]
    fresh = make_fresh()
    for old, new in zip((model, optimizer), fresh, strict=True):
        for variable, value in zip(old.variables, new.variables, strict=True):
            variable.assign(to_numpy(value))
    return 0

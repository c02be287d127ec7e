"""The same training in several ways, and the proof that it ends the same."""

import functools
from typing import Any

import numpy as np
import pytest

from tests.helpers.small_runs import engine_of
from tests.helpers.step_runs import BATCH
from tests.helpers.step_runs import CLIPNORM
from tests.helpers.step_runs import Arrays
from tests.helpers.step_runs import StepRun
from tests.helpers.step_runs import small_vit
from trainers.engines.engine import Engine

STEPS = 6

CASES: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "use_ema": True},
    "lamb": {"optimizer": "lamb"},
    "sgd": {"optimizer": "sgd"},
    "accumulation": {"optimizer": "adamw", "use_ema": True, "accumulation": 2},
    # A frozen block whose activations are computed twice; each variable has a rate of its own.
    "fine_tuned": {
        "build": functools.partial(small_vit, remat=True),
        "freeze": ("encoder_block_0",),
        "layer_decay": 0.95,
    },
}

#: On four devices and in two processes: micro-batches, and averages of the weights.
FEWER_CASES = ("accumulation",)


@functools.cache
def on_one_replica(case: str) -> Arrays:
    """Returns how a case ends on one replica."""
    return train_case(engine_of(1), case)


def train_case(engine: Engine, case: str, **changes: Any) -> Arrays:
    """Trains one of the cases and returns all that it ends with.

    Returns:
        Weights and optimizer state, `initial/...` weights, and for the first step
        (`first/...`) and the others (`later/...`) the sums of the step.
    """
    run = StepRun(engine, **{**CASES[case], **changes})
    initial = {f"initial/{name}": value for name, value in run.state().items()}
    first, later = run.train(0, 1), run.train(1, STEPS - 1)
    sums = {
        f"{part}/{name}": np.asarray(value)
        for part, values in (("first", first), ("later", later))
        for name, value in values.items()
        if name != "data_wait"
    }
    return {**run.state(), **initial, **sums}


def assert_same_training(one: Arrays, other: Arrays) -> None:
    """Fails unless two trainings agree to 1e-5, in a case that could have shown a difference."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name.startswith(("first/", "later/")):
            assert other[name] == pytest.approx(value, rel=1e-4), name
        else:
            np.testing.assert_allclose(other[name], value, atol=1e-5, rtol=0, err_msg=name)
    # The comparison says something only if clipping bit and the weights moved.
    assert one["first/gradient_norm"] > CLIPNORM
    assert one["later/gradient_norm"] / (STEPS - 1) > CLIPNORM
    assert one["first/num_examples"] == BATCH
    assert one["later/loss"] / (STEPS - 1) < 0.98 * one["first/loss"]
    kernels = [name for name in one if name.startswith("model/")]
    assert max(np.abs(one[name] - one[f"initial/{name}"]).max() for name in kernels) > 0.01

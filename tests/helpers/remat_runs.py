"""The same training with and without rematerialisation."""

from functools import partial
from typing import Any

import keras
import numpy as np

from tests.helpers.step_runs import Arrays
from tests.helpers.step_runs import StepRun
from tokenlearner_keras import create_model
from trainers.engines.engine import Engine

STEPS = 4
RATES = {"dropout": 0.2, "attention_dropout": 0.2, "stochastic_depth": 0.5}

CASES: dict[str, dict[str, Any]] = {
    "certain": {"rates": {}},
    "dropout": {"rates": RATES},
    "accumulation": {"rates": RATES, "accumulation": 2},
}

#: On four replicas; all cases run on two. The first ends like a plain run on one replica.
FEWER_RUNS = (("certain", "remat"), ("accumulation", "plain"), ("accumulation", "remat"))


def train_remat(engine: Engine, case: str, *, remat: bool, **changes: Any) -> Arrays:
    """Trains one of the cases and returns the weights and the optimizer's state.

    Args:
        engine: Where to run.
        case: One of `CASES`.
        remat: As in the configuration of the model.
        **changes: Further arguments of `StepRun`, or `rates`.
    """
    arguments = {**CASES[case], **changes}
    rates = arguments.pop("rates")
    run = StepRun(engine, partial(_vit, remat=remat, **rates), **arguments)
    assert run.model.get_layer("encoder_block_0").remat is remat
    run.train(0, STEPS)
    return run.state()


def assert_same_weights(one: Arrays, other: Arrays) -> None:
    """Fails unless two trainings end with the same weights and optimizer to 1e-5."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=1e-5, rtol=0, err_msg=name)


def largest_difference(one: Arrays, other: Arrays) -> float:
    """Returns the largest difference of two trainings' weights."""
    names = [name for name in one if name.startswith("model/")]
    return max(float(np.abs(one[name] - other[name]).max()) for name in names)


def _vit(**overrides: Any) -> keras.Model:
    fields = {"width": 16, "num_heads": 2, "mlp_dim": 32, **overrides}
    return create_model("vit_ti4_d2_tl2at1", 10, 8, **fields)

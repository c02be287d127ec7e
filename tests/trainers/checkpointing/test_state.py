import keras
import numpy as np
import pytest

from tests.helpers.small_runs import assert_same_arrays
from trainers.checkpointing.state import load_state
from trainers.checkpointing.state import state_arrays
from trainers.utils.errors import ConfigurationError

pytestmark = pytest.mark.every_backend


def _model(width: int, layers: int = 1) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    dense = [keras.layers.Dense(width) for _ in range(layers)]
    model = keras.Sequential([keras.Input((3,)), *dense, keras.layers.Dropout(0.5)])
    optimizer = keras.optimizers.AdamW(use_ema=True)
    optimizer.build(model.trainable_variables)
    return model, optimizer


@pytest.mark.parametrize(("width", "layers"), [(5, 1), (4, 2)])
def test_the_state_of_another_model_changes_nothing(width: int, layers: int) -> None:
    arrays = state_arrays(*_model(width, layers))
    model, optimizer = _model(4)
    before = state_arrays(model, optimizer)
    with pytest.raises(ConfigurationError, match="another model or optimizer"):
        load_state(arrays, model, optimizer)
    assert_same_arrays(state_arrays(model, optimizer), before)


def test_state_round_trip() -> None:
    keras.backend.clear_session()  # the names of the layers start again
    model, optimizer = _model(4)
    for variable in [*model.trainable_variables, *optimizer.variables]:
        if "float" in variable.dtype:
            variable.assign(np.random.default_rng(0).random(variable.shape))
    arrays = state_arrays(model, optimizer)
    assert not any("seed_generator" in name for name in arrays)
    keras.backend.clear_session()
    other = _model(4)
    load_state({**arrays, "log/steps": np.array(3)}, *other)
    assert_same_arrays(state_arrays(*other), arrays)


def test_the_arrays_are_copies() -> None:
    model, optimizer = _model(4)
    arrays = state_arrays(model, optimizer)
    before = {name: value.copy() for name, value in arrays.items()}
    for variable in [*model.trainable_variables, *optimizer.variables]:
        variable.assign(variable.value + 1)
    assert_same_arrays(arrays, before)

"""What the round trips of layers and of models share: files, training, gradients."""

import json
from collections.abc import Container
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy

# Outside a jitted function JAX compiles each operation of each shape by itself.
ON_JAX = keras.backend.backend() == "jax"
needs_xla = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="jit_compile is torch.compile there, which needs a C++ compiler",
)
without_and_with_jit = pytest.mark.parametrize(
    "jit_compile",
    [
        pytest.param(False, marks=pytest.mark.extra if ON_JAX else ()),
        pytest.param(True, marks=[needs_xla] if ON_JAX else [needs_xla, pytest.mark.extra]),
    ],
)


def quick_ones(names: Iterable[str], quick: Container[str], *marks: Any) -> list[Any]:
    """Returns the names as parameters, slow ones marked, with further marks."""
    slow = [pytest.mark.slow, *marks]
    return [pytest.param(name, marks=() if name in quick else slow) for name in names]


def waken(model: Any) -> None:
    """Moves all weights off their initial values, of which many are zero."""
    for index, variable in enumerate(model.trainable_variables):
        variable.assign_add(0.1 * random(*variable.shape, seed=index))


def is_dead(layer: Any, variable: Any) -> bool:
    """Whether the true gradient of a variable of a layer (or a model of such) is zero."""
    path = variable.path
    names = [each.name for each in getattr(layer, "layers", [])]
    fusers = [name for name in names if name.startswith("token_fuser")]
    if "class_token" in names and fusers:
        # Only the class token is read after the last block; it bypasses the fuser.
        if any(each is variable for each in layer.get_layer(fusers[-1]).weights):
            return True
    if path.endswith("mixing/bias"):  # A constant on all channels, before a LayerNorm.
        return getattr(layer, "use_normalization", True)
    if path.endswith("token_masking/output/bias"):  # A constant on all positions, but
        return "fuser" not in path  # the fuser's mask has no softmax.
    return path.endswith("key/bias")  # A constant on all keys, before a softmax.


def check_gradients(layer: Any, variables: list[Any], found: list[np.ndarray]) -> None:
    """Checks that exactly the dead parameters have no gradient."""
    largest = max(np.abs(gradient).max() for gradient in found)
    for variable, gradient in zip(variables, found, strict=True):
        size = np.abs(gradient).max() / largest
        if is_dead(layer, variable):
            assert size < 1e-6, f"{variable.path}: {size:.1e}"
        else:
            assert size > 1e-4, f"{variable.path}: {size:.1e}"


def check_files(model: keras.Model, copy: keras.Model, inputs: Any, folder: Path) -> None:
    """Checks that both kinds of files give the same outputs."""
    expected = to_numpy(model(inputs))
    assert np.all(np.isfinite(expected)) and np.ptp(expected) > 0
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    assert type(loaded) is type(model)
    assert np.array_equal(to_numpy(loaded(inputs)), expected)
    # By way of JSON, which makes lists of tuples.
    configs = [json.loads(json.dumps(each.get_config())) for each in (loaded, model)]
    assert configs[0] == configs[1]
    model.save_weights(folder / "model.weights.h5")
    copy.load_weights(folder / "model.weights.h5")
    assert np.array_equal(to_numpy(copy(inputs)), expected)


def fit_three_steps(
    model: keras.Model, loss: Any, inputs: Any, labels: Any, jit_compile: bool
) -> None:
    """Trains for three steps and checks that every parameter took part."""
    before = [to_numpy(variable) for variable in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit_compile)
    history = model.fit(inputs, labels, batch_size=2, epochs=3, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    for old, variable in zip(before, model.trainable_variables, strict=True):
        new = to_numpy(variable)
        assert np.all(np.isfinite(new)), variable.path
        assert not np.array_equal(old, new) or is_dead(model, variable), variable.path

"""TokenLearner layers under `tf.distribute`: two replicas train as one device does."""

import functools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA

pytestmark = pytest.mark.slow

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf.distribute is TensorFlow's", allow_module_level=True)


@pytest.fixture(scope="module")
def other_process() -> Iterator[Executor]:
    """A process that may cut its CPU in two and has no other strategy.

    TensorFlow cuts a CPU before its first use only, and the collective operations of
    two strategies in a process are mixed up.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.mark.parametrize("name", ["v1.0", "v1.1", "mha", "fuser", "batch norm"])
def test_two_replicas_train_as_one_device(name: str, other_process: Executor) -> None:
    results = other_process.submit(_train_both, name).result()
    assert np.all(np.isfinite(results["loss"])) and results["loss"][-1] < results["loss"][0]
    for path, old, alone, first, second in results["weights"]:
        assert np.array_equal(first, second), path
        assert np.abs(first - alone).max() < 1e-5, path
        assert _dead(path) or not np.array_equal(first, old), path


def _dead(path: str) -> bool:
    """Whether the true gradient is zero: see the round trips' tests."""
    learner = "token_learner" in path and path.endswith("token_masking/output/bias")
    return learner or path.endswith(("key/bias", "mixing/bias"))


def _train_both(name: str) -> dict[str, Any]:
    """Trains a model on one device and its twin on two replicas, on the same batches."""
    strategy = _strategy()
    alone = _model(name)
    before = alone.get_weights()
    _train(alone)
    with strategy.scope():
        together = _model(name)
    loss = _train(together)
    weights = []
    for variable, old, expected in zip(together.weights, before, alone.get_weights(), strict=True):
        copies = strategy.experimental_local_results(variable.value)
        weights.append((variable.path, old, expected, *(copy.numpy() for copy in copies)))
    return {"loss": loss, "weights": weights}


@functools.cache
def _strategy() -> Any:
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def _model(name: str) -> keras.Model:
    inputs = keras.Input((4, 5, 8))
    x = _learned(inputs, name)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((-1, 8))(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    # Both models are to start alike, and not at the fuser's zeros.
    model.set_weights([0.3 * random(*w.shape, seed=i) for i, w in enumerate(model.get_weights())])
    return model


def _learned(x: Any, name: str) -> Any:
    if name == "v1.0":
        return tk.TokenLearner(3)(x)
    if name == "mha":
        return TokenLearnerMHA(3, 2)(x)
    if name == "batch norm":
        # Each replica has four of the eight examples; the statistics must be of all.
        x = BatchNormalization()(x)
    tokens = tk.TokenLearnerV11(3, 5)(x)
    if name in ("v1.1", "batch norm"):
        return tokens
    return keras.layers.Add()([tk.TokenFuser(5)(tokens, x), x])


def _train(model: keras.Model) -> list[float]:
    model.compile(keras.optimizers.SGD(0.02), "mse", jit_compile=False)
    x, y = random(16, 4, 5, 8, seed=90), random(16, 3, seed=91)
    return model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]

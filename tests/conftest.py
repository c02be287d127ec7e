"""Fixtures for all tests. The backend is Keras' own choice (KERAS_BACKEND)."""

import gc
import os
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Programs that run once take longer to optimize than to run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import numpy as np
import pytest

Gradients = Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]


def pytest_collection_finish() -> None:
    """Takes what is loaded by now, which stays, out of every later search for garbage.

    With TensorFlow that is some hundred thousand objects, and each `clear_session` searches.
    """
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_keras() -> Iterator[None]:
    """Seeds each test and restores the global dtype policy after it."""
    keras.utils.set_random_seed(1234)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def gradients() -> Gradients:
    """A function (layer, inputs, cotangent, variables) -> gradients of both.

    They are the gradients of sum(layer(*inputs) * cotangent), on any backend.
    """
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]


def _tensorflow(
    layer: Any, inputs: list[np.ndarray], cotangent: np.ndarray, variables: list[Any]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    import tensorflow as tf

    tensors = [tf.constant(value) for value in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = tf.reduce_sum(layer(*tensors) * cotangent)
    # Under Keras 2 a variable is TensorFlow's own.
    watched = [v if isinstance(v, tf.Variable) else v.value for v in variables]
    by_input, by_variable = tape.gradient(loss, [tensors, watched])
    return [g.numpy() for g in by_input], [g.numpy() for g in by_variable]


def _jax(
    layer: Any, inputs: list[np.ndarray], cotangent: np.ndarray, variables: list[Any]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    import jax

    trainable = [v.value for v in layer.trainable_variables]
    fixed = [v.value for v in layer.non_trainable_variables]

    def loss(tensors: list[Any], weights: list[Any]) -> Any:
        output, _ = layer.stateless_call(weights, fixed, *tensors)
        return (output * cotangent).sum()

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    by_input, by_weight = gradient([jax.numpy.asarray(x) for x in inputs], trainable)
    order = {id(v): g for v, g in zip(layer.trainable_variables, by_weight, strict=True)}
    return [np.asarray(g) for g in by_input], [np.asarray(order[id(v)]) for v in variables]


def _torch(
    layer: Any, inputs: list[np.ndarray], cotangent: np.ndarray, variables: list[Any]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    import torch

    tensors = [torch.tensor(value, requires_grad=True) for value in inputs]
    loss = (layer(*tensors) * torch.tensor(cotangent)).sum()
    values = [v.value for v in variables]
    found = torch.autograd.grad(loss, [*tensors, *values])
    arrays = [g.detach().cpu().numpy() for g in found]
    return arrays[: len(tensors)], arrays[len(tensors) :]

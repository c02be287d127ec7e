"""What a test needs to know of the backend that it runs on."""

from collections.abc import Callable
from typing import Any

import keras
import pytest

ON_JAX = keras.backend.backend() == "jax"


def only_on_tensorflow(reason: str) -> pytest.MarkDecorator:
    """Returns a mark that leaves a test out on JAX."""
    return pytest.mark.skipif(ON_JAX, reason=f"TensorFlow only: {reason}")


def only_on_jax(reason: str) -> pytest.MarkDecorator:
    """Returns a mark that leaves a test out on TensorFlow."""
    return pytest.mark.skipif(not ON_JAX, reason=f"JAX only: {reason}")


def compiled(function: Callable[[Any], Any], jit_compile: bool = True) -> Callable[[Any], Any]:
    """Returns a function compiled by XLA, or as a plain graph where the backend has these."""
    if ON_JAX:
        import jax

        return jax.jit(function) if jit_compile else function
    import tensorflow as tf

    return tf.function(function, jit_compile=jit_compile)


def dtype_name(tensor: Any) -> str:
    """Returns the name of a tensor's type, the same on any backend."""
    return str(keras.backend.standardize_dtype(tensor.dtype))

"""A function of one slice after the other, in the memory of one."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def map_one_by_one(function: Callable[[Any], Any], values: Any) -> Any:
    """Returns the float32 results of a function on each slice of the first axis, stacked.

    Args:
        function: From a slice to a float32 tensor; traced in graph code.
        values: A tensor of Keras' backend.
    """
    if keras.backend.backend() == "tensorflow":
        # `keras.ops.map` would run ten of them at a time, and needs the memory of ten.
        return tf.map_fn(function, values, fn_output_signature=tf.float32, parallel_iterations=1)
    return keras.ops.map(function, values)

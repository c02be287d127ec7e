"""Random arrays to call layers and models with, and their outputs as arrays."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.weights.reference import reference_parameters


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Returns normally distributed float32 values, the same ones for the same seed."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def random_inputs(model: keras.Model, batch: int = 2, seed: int = 0) -> np.ndarray:
    """Returns random inputs of a model with one input."""
    return random(batch, *model.input_shape[1:], seed=seed)


def random_parameters(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns a random array for every parameter, under the reference's names."""
    generator = np.random.default_rng(0)
    return {
        name: generator.normal(size=parameter.shape).astype("float32")
        for name, parameter in reference_parameters(model).items()
    }


def to_numpy(x: Any) -> np.ndarray:
    """Returns a tensor of any backend as an array; one in half precision as float32."""
    if keras.backend.standardize_dtype(x.dtype) in ("bfloat16", "float16"):
        x = ops.cast(x, "float32")
    return ops.convert_to_numpy(x)

"""Public ViT checkpoints, changed for a test, and what a model has of them."""

from pathlib import Path

import keras
import numpy as np

from tests.helpers.goldens import golden_arrays
from tokenlearner_keras.weights.reference import reference_parameters

POSITIONS = "Transformer/posembed_input/pos_embedding"
KERNEL = "embedding/kernel"
Arrays = dict[str, np.ndarray]


def checkpoint_arrays() -> Arrays:
    """Returns the arrays of the golden checkpoint."""
    return golden_arrays("augreg_checkpoint")


def save_checkpoint(folder: Path, arrays: Arrays) -> Path:
    """Writes a checkpoint and returns its path."""
    np.savez(folder / "checkpoint.npz", **arrays)
    return folder / "checkpoint.npz"


def parameter_value(model: keras.Model, name: str) -> np.ndarray:
    """Returns a parameter under the reference's name, in the reference's shape."""
    parameter = reference_parameters(model)[name]
    return keras.ops.convert_to_numpy(parameter.variable).reshape(parameter.shape)


def assert_golden_logits(model: keras.Model) -> None:
    """Fails unless a model gives the reference's logits for the golden checkpoint."""
    expected = golden_arrays("augreg_expected")
    logits = keras.ops.convert_to_numpy(model(expected["images"]))
    difference = np.abs(logits - expected["logits"]).max()
    assert difference < 1e-5 * np.abs(expected["logits"]).max()

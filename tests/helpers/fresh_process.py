"""Loads saved models in a process that has built none: `python -m tests.helpers.fresh_process`."""

import importlib
import sys
from pathlib import Path

import keras
import numpy as np

import tokenlearner_keras  # noqa: F401  (its classes are registered by the import)
from tests.helpers.arrays import to_numpy
from tests.helpers.processes import PATIENCE
from tests.helpers.processes import start


def outputs_elsewhere(
    models: dict[str, tuple[keras.Model, np.ndarray]], folder: Path, package: str
) -> dict[str, np.ndarray]:
    """Saves models, and returns what they make of their inputs in a process that loads them.

    Args:
        models: Models with their inputs, by name.
        folder: An empty folder for their files.
        package: What that process imports beside tokenlearner_keras.
    """
    for name, (model, inputs) in models.items():
        model.save(folder / f"{name}.keras")
        np.save(folder / f"{name}.npy", inputs)
    process = start(
        "tests.helpers.fresh_process", str(folder), package, backend=keras.backend.backend()
    )
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors[-3000:]
    return {name: np.load(folder / f"{name}.out.npy") for name in models}


def _main(folder: Path, package: str) -> None:
    importlib.import_module(package)
    for path in folder.glob("*.keras"):
        model = keras.saving.load_model(path)
        inputs = np.load(path.with_suffix(".npy"))
        np.save(path.with_suffix(".out.npy"), to_numpy(model(inputs)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])

"""Saved models in a new process: `python -m tests.helpers.loaded_outputs FOLDER`.

Reads each `NAME.keras` and `NAME.inputs.npy`, and writes the outputs to `NAME.outputs.npy`.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import tokenlearner_keras  # noqa: F401, registers its layers


def main(folder: str) -> None:
    for path in Path(folder).glob("*.keras"):
        model = keras.saving.load_model(path, safe_mode=True)
        outputs = model.predict(np.load(path.with_suffix(".inputs.npy")), verbose=0)
        np.save(path.with_suffix(".outputs.npy"), outputs)


if __name__ == "__main__":
    main(sys.argv[1])

"""The files of tests/goldens and the model whose goldens they hold."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

import tokenlearner_keras as tk

GOLDENS = Path(__file__).parents[1] / "goldens"
#: Laid out like the public ViT checkpoints.
CHECKPOINT = GOLDENS / "augreg_checkpoint.npz"


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of one file, named without its suffix."""
    with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def golden_model(**fields: Any) -> keras.Model:
    """Returns the goldens' Vision Transformer, with other fields where they are given."""
    base = {
        "image_size": (32, 32),
        "patch_size": (8, 8),
        "width": 24,
        "depth": 3,
        "num_heads": 3,
        "mlp_dim": 48,
        "num_classes": 7,
    }
    return tk.build_model(tk.VisionTransformerConfig(**{**base, **fields}))

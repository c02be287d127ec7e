"""Models by name at a size for tests."""

from typing import Any

import keras

import tokenlearner_keras as tk

SMALL: dict[str, Any] = {
    "image_size": (32, 48),
    "width": 16,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 5,
}


def small_model(name: str, **overrides: Any) -> keras.Model:
    """Returns a small model of that name; one for videos takes four frames.

    The head starts at zero: it is given weights, so that equal outputs mean something.
    """
    if name.startswith("vivit"):
        overrides.setdefault("num_frames", 4)
    model = tk.create_model(name, **{**SMALL, **overrides})
    for layer in model.layers:
        if layer.name == "head":
            layer.kernel.assign(keras.random.normal(layer.kernel.shape, seed=1))
    return model

"""A subclassed model: `python examples/subclassed.py`, on any Keras backend.

TokenLearner layers as attributes of your own model, trained by `compile` and `fit` with Keras's
callbacks; the best epoch is loaded from its file. It trains on handwritten digits, in under a
minute on a CPU.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

import tokenlearner_keras as tk


@keras.saving.register_keras_serializable(package="examples")
class DigitClassifier(keras.Model):
    """Two stages: sixteen tokens from the grid, then four tokens from the sixteen.

    Args:
        width: Channels of a token.
        **kwargs: Keyword arguments of `keras.Model`.
    """

    def __init__(self, width: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.stem = keras.layers.Conv2D(width, 3, padding="same", activation="relu")
        self.first = tk.TokenLearnerV11(num_tokens=16, dropout=0.1)
        self.norm = keras.layers.LayerNormalization()
        self.attention = keras.layers.MultiHeadAttention(4, width // 4)
        self.second = tk.TokenLearnerV11(num_tokens=4)
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(10)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # Build all layers here, so that a file can be loaded before the first call.
        batch = input_shape[0]
        self.stem.build(input_shape)
        self.first.build((*input_shape[:3], self.width))
        self.norm.build((batch, 16, self.width))
        self.attention.build((batch, 16, self.width), (batch, 16, self.width))
        self.second.build((batch, 16, self.width))
        self.head.build((batch, 4 * self.width))
        self.built = True

    def call(self, images: Any, training: bool | None = None) -> Any:
        tokens = self.first(self.stem(images), training=training)  # (B, 16, width)
        x = self.norm(tokens)
        tokens = tokens + self.attention(x, x, training=training)
        tokens = self.second(tokens)  # (B, 4, width)
        return self.head(self.flatten(tokens))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


def main(folder: str | Path, epochs: int = 15) -> float:
    """Trains with Keras's callbacks and loads the best epoch.

    Args:
        folder: Where `best.keras`, `epochs.csv` and, on TensorFlow, `tensorboard/` go.
        epochs: Maximum number of epochs.

    Returns:
        The test accuracy.

    Raises:
        RuntimeError: If the file gives other outputs than the model in memory.
    """
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images, labels = (digits.images[..., None] / 16).astype("float32"), digits.target
    test = slice(1400, None)

    folder = Path(folder)
    callbacks = [
        keras.callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True),
        keras.callbacks.EarlyStopping(patience=4, restore_best_weights=True),
        keras.callbacks.CSVLogger(folder / "epochs.csv"),
    ]
    if keras.backend.backend() == "tensorflow":
        # This callback writes with TensorFlow, whatever the backend.
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
    model = DigitClassifier()
    model.compile(
        keras.optimizers.AdamW(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        images[:1400],
        labels[:1400],
        validation_split=0.15,
        epochs=epochs,
        callbacks=callbacks,
        verbose=2,
    )

    best = keras.saving.load_model(folder / "best.keras")
    expected = model.predict(images[test], verbose=0)
    if not np.allclose(best.predict(images[test], verbose=0), expected, atol=1e-4):
        raise RuntimeError("best.keras is not the model of the best epoch.")
    accuracy = best.evaluate(images[test], labels[test], verbose=0)[1]
    print(f"test accuracy of the best epoch {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="keeps the files there; by default they are deleted")
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    if arguments.folder:
        Path(arguments.folder).mkdir(parents=True, exist_ok=True)
        main(arguments.folder, arguments.epochs)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary, arguments.epochs)

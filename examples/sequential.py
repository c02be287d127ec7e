"""A keras.Sequential: `python examples/sequential.py`, on any Keras backend.

One line puts a TokenLearner between a convolution and a classifier: eight tokens replace 64
positions. It trains on handwritten digits, in under a minute on a CPU.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import keras
from sklearn.datasets import load_digits

import tokenlearner_keras as tk


def build_model() -> keras.Sequential:
    """Returns a classifier of 8x8 digits."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            tk.TokenLearner(num_tokens=8, pooling="mean"),  # (B, 8, 8, 32) -> (B, 8, 32)
            keras.layers.LayerNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def main(folder: str | Path, epochs: int = 15) -> float:
    """Trains, writing one CSV row per epoch.

    Args:
        folder: Where `epochs.csv` goes.
        epochs: Maximum number of epochs.

    Returns:
        The test accuracy.
    """
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images, labels = (digits.images[..., None] / 16).astype("float32"), digits.target
    test = slice(1400, None)

    model = build_model()
    model.summary()
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    log = Path(folder) / "epochs.csv"
    model.fit(
        images[:1400],
        labels[:1400],
        validation_split=0.15,
        epochs=epochs,
        callbacks=[
            keras.callbacks.ReduceLROnPlateau(patience=2),
            keras.callbacks.CSVLogger(log),
        ],
        verbose=0,
    )
    with open(log, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            print(f"epoch {row['epoch']}: validation accuracy {float(row['val_accuracy']):.3f}")
    accuracy = model.evaluate(images[test], labels[test], verbose=0)[1]
    print(f"test accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(temporary, arguments.epochs)

"""A functional model: `python examples/functional.py`, on any Keras backend.

Six learned tokens replace the 64 positions of a small convolutional network, attend to each
other, and are fused back onto the positions. It trains on handwritten digits, in under a minute
on a CPU.
"""

import argparse

import keras
from sklearn.datasets import load_digits

import tokenlearner_keras as tk


def build_model() -> keras.Model:
    """Returns a classifier of 8x8 digits."""
    inputs = keras.Input((8, 8, 1))
    grid = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)  # (B, 8, 8, 32)
    tokens = tk.TokenLearnerV11(num_tokens=6, name="learner")(grid)  # (B, 6, 32)
    x = keras.layers.LayerNormalization()(tokens)
    tokens = tokens + keras.layers.MultiHeadAttention(4, 8)(x, x)
    # The fuser has no residual inside: the grid is added outside.
    grid = grid + tk.TokenFuser()(tokens, grid)  # (B, 8, 8, 32)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(grid)  # (B, 3, 3, 32)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def main(epochs: int = 15) -> float:
    """Trains with early stopping and looks at the tokens.

    Args:
        epochs: Maximum number of epochs.

    Returns:
        The test accuracy.
    """
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images, labels = (digits.images[..., None] / 16).astype("float32"), digits.target
    test = slice(1400, None)

    model = build_model()
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        images[:1400],
        labels[:1400],
        validation_split=0.15,
        epochs=epochs,
        callbacks=[keras.callbacks.EarlyStopping(patience=4, restore_best_weights=True)],
        verbose=2,
    )
    accuracy = model.evaluate(images[test], labels[test], verbose=0)[1]
    print(f"test accuracy {accuracy:.3f}")
    maps = tk.attention_maps(model, images[test])["learner"]
    print(f"attention maps of {len(maps)} images: {maps.shape}")  # (images, 6, 8, 8)
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    main(parser.parse_args().epochs)

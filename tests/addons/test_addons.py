"""The library beside tensorflow-addons, which needs Keras 2.15: `nox -s addons`.

There the goldens of tests/tokenlearner_keras run, too. Elsewhere these tests are skipped.
"""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.encoder_block import StochasticDepth

tfa = pytest.importorskip("tensorflow_addons")

import tensorflow as tf  # noqa: E402, only where tensorflow-addons is
from sklearn.datasets import load_digits  # noqa: E402

BATCH_SIZE = 64
STEPS = 80
LARGEST_ANGLE = 0.2  # radians


class Training(NamedTuple):
    """A model trained on two thirds of the digits, and what it has not seen."""

    model: keras.Model
    before: list[np.ndarray]
    images: np.ndarray
    labels: np.ndarray


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images `(N, 8, 8, 3)` in [-1, 1] and labels, in a fixed random order."""
    ink, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (ink[order] / 8 - 1).reshape(-1, 8, 8, 1).repeat(3, axis=-1)
    return images.astype("float32"), labels[order]


def _rotated(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    angles = tf.random.uniform([BATCH_SIZE], -LARGEST_ANGLE, LARGEST_ANGLE)
    return tfa.image.rotate(images, angles, "bilinear", fill_value=-1.0), labels


@pytest.fixture(scope="module")
def training() -> Training:
    """`fit` by tfa's LAMB on images that tfa rotates."""
    keras.utils.set_random_seed(0)
    images, labels = _digits()
    split = 2 * len(labels) // 3
    config = tk.VisionTransformerConfig(
        image_size=(8, 8),
        patch_size=(2, 2),
        width=32,
        depth=2,
        num_heads=4,
        mlp_dim=64,
        token_learner="v1.1",
        num_tokens=4,
        token_learner_at=1,
        num_classes=10,
        stochastic_depth=0.1,
    )
    model = tk.build_model(config)
    before = model.get_weights()
    model.compile(
        tfa.optimizers.LAMB(learning_rate=0.02, weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    dataset = tf.data.Dataset.from_tensor_slices((images[:split], labels[:split]))
    dataset = dataset.shuffle(split).repeat().batch(BATCH_SIZE).map(_rotated)
    model.fit(dataset, steps_per_epoch=STEPS, verbose=0)
    return Training(model, before, images[split:], labels[split:])


def test_lamb_learns_from_rotated_images(training: Training) -> None:
    _, accuracy = training.model.evaluate(training.images, training.labels, verbose=0)
    assert accuracy > 0.25, accuracy  # chance is 0.1


def test_every_weight_moves(training: Training) -> None:
    weights = training.model.weights
    for variable, old in zip(weights, training.before, strict=True):
        # A softmax over positions or keys takes no notice of what is added to all of them.
        dead = "key/bias" in variable.name or "output/bias" in variable.name
        assert dead or not np.array_equal(old, variable.numpy()), variable.name


def test_a_keras_file_loads_without_custom_objects(training: Training, tmp_path: Path) -> None:
    training.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, tk.VisionTransformer)
    images = training.images[:4]
    np.testing.assert_array_equal(loaded(images), training.model(images))


def test_attention_maps_from_the_layer(training: Training) -> None:
    """As docs/tensorflow_addons.md says, because the model's graph is not read."""
    model = training.model
    with pytest.raises(ValueError, match="Graphs of Keras 2"):
        tk.attention_maps(model, training.images)
    layer = model.get_layer("token_learner_0")
    features = keras.Model(model.input, layer.input)
    tokens, maps = layer(features(training.images[:3]), return_attention_maps=True)
    assert tokens.shape == (3, 4, 32)
    assert maps.shape == (3, 4, 4, 4)
    np.testing.assert_allclose(tf.reduce_sum(maps, axis=(2, 3)), 1.0, rtol=1e-5)


def test_a_mask_hides_positions() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 3, 6)).astype("float32")
    mask = np.ones((2, 3, 3), bool)
    mask[:, 2] = False
    for layer in (tk.TokenLearner(4), tk.TokenLearnerV11(4), tk.TokenLearnerMHA(4, 2)):
        expected = layer(values, mask=mask)
        other = np.where(mask[..., None], values, np.nan)
        np.testing.assert_array_equal(layer(other, mask=mask), expected)


def test_stochastic_depth_drops_examples_in_training_only() -> None:
    layer = StochasticDepth(0.5)
    ones = np.ones((64, 2, 3), "float32")
    np.testing.assert_array_equal(layer(ones), ones)
    dropped = layer(ones, training=True).numpy()
    per_example = dropped[:, 0, 0]
    np.testing.assert_array_equal(dropped, per_example[:, None, None] * ones)
    assert set(per_example) == {0.0, 2.0}
    assert not np.array_equal(layer(ones, training=True), dropped)


def test_half_precision_sums_in_float32() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 3, 6)).astype("float32")
    layer = tk.TokenLearnerV11(4, dtype="mixed_bfloat16")
    tokens, maps = layer(values, return_attention_maps=True)
    assert tokens.dtype == tf.bfloat16
    assert maps.dtype == tf.float32
    assert tk.TokenFuser(dtype="mixed_bfloat16")(tokens, values).dtype == tf.bfloat16


def test_what_needs_keras_3_says_so() -> None:
    block = EncoderBlock(2, 8, remat=True)
    with pytest.raises(NotImplementedError, match="needs Keras 3"):
        block(np.zeros((1, 3, 4), "float32"), training=True)

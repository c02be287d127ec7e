"""A TokenLearner put into graphs of every kind, before a layer that is found by its name."""

import keras
import numpy as np
import pytest
from keras import layers

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.encoders import encoder
from tokenlearner_keras.models.insert import insert_token_learner


def test_several_inputs_outputs_shared_layers_operations_and_options() -> None:
    sequence, scale = keras.Input((12, 8), name="sequence"), keras.Input((8,), name="scale")
    shared = layers.Dense(8, name="shared")
    early = shared(sequence)
    x = layers.Dropout(0.5, name="drop")(early, training=False)
    x = layers.Activation("tanh", name="here")(x)
    x = shared(x) * keras.ops.expand_dims(scale, 1)
    first, pair = x[:, 0], keras.ops.split(x, 2, axis=-1)
    last = keras.ops.concatenate([first, pair[0][:, -1]], axis=-1)
    outputs = {"early": early, "late": {"last": layers.Dense(2, name="head")(last)}}
    model = keras.Model({"sequence": sequence, "scale": scale}, outputs)
    learner = tk.TokenLearnerV11(3)
    inserted = insert_token_learner(model, "here", learner)
    values = {"sequence": random(2, 12, 8), "scale": random(2, 8)}
    result = inserted(values)
    expected = np.tanh(to_numpy(learner(shared(values["sequence"]))))
    expected = to_numpy(shared(expected)) * values["scale"][:, None]
    expected = np.concatenate([expected[:, 0], expected[:, -1, :4]], axis=-1)
    head = to_numpy(model.get_layer("head")(expected))
    assert np.allclose(to_numpy(result["late"]["last"]), head, atol=1e-5)
    assert np.array_equal(to_numpy(result["early"]), to_numpy(model(values)["early"]))
    copy = keras.Model.from_config(inserted.get_config())
    copy.set_weights(inserted.get_weights())
    assert np.allclose(to_numpy(copy(values)["late"]["last"]), head, atol=1e-5)


def test_an_output_that_feeds_the_layer_stays() -> None:
    inputs = keras.Input((12, 8))
    features = layers.Dense(8, name="features")(inputs)
    pooled = layers.GlobalAveragePooling1D(name="pool")(features)
    inserted = insert_token_learner(keras.Model(inputs, [features, pooled]), "pool")
    assert inserted.output[0].shape == (None, 12, 8) and inserted.output[1].shape == (None, 8)


def test_a_sequential_model_becomes_a_functional_one() -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="stem"),
            layers.Activation("relu", name="here"),
            layers.Flatten(name="flatten"),
        ],
        name="small",
    )
    inserted = insert_token_learner(model, "here", tk.TokenLearner(2))
    assert inserted.name == "small" and inserted.output_shape == (None, 8)
    assert inserted.get_layer("stem") is model.get_layer("stem")
    for wrong in (keras.Sequential([layers.Dense(2)]), "model"):
        with pytest.raises(ValueError, match="graph of a functional or Sequential model"):
            insert_token_learner(wrong, "here")  # type: ignore[arg-type]


def test_layers_of_models_that_are_layers() -> None:
    inner = encoder(pool=False)
    inputs = keras.Input((12, 8))
    x = layers.Dense(8, name="stem")(inputs)
    x = layers.GlobalAveragePooling1D(name="pool")(inner(x, training=False))
    model = keras.Model(inputs, x, name="outer")
    learner = tk.TokenLearnerV11(2, name="learner")
    inserted = insert_token_learner(model, "norm_1", learner)
    x = random_inputs(model)
    assert {k: v.shape for k, v in tk.attention_maps(inserted, x).items()} == {
        "encoder/learner": (2, 2, 12)
    }
    within = insert_token_learner(inner, "norm_1", tk.TokenLearnerV11(2))
    within.set_weights(inserted.get_layer("encoder").get_weights())
    expected = to_numpy(within(model.get_layer("stem")(x))).mean(axis=1)
    assert np.allclose(to_numpy(inserted(x)), expected, atol=1e-5)
    assert inner.output_shape == (None, 12, 3) and inner is model.get_layer("encoder")
    assert insert_token_learner(model, "encoder/norm_0").output_shape == (None, 3)


def test_names_that_are_not_of_one_call() -> None:
    inner, inputs = encoder(pool=False), keras.Input((12, 8))
    other = keras.models.clone_model(inner)
    other.name = "other"
    double = keras.Model(inputs, [inner(inputs), other(inputs)])
    with pytest.raises(ValueError, match="'encoder/norm_0', 'other/norm_0'"):
        insert_token_learner(double, "norm_0")
    assert insert_token_learner(double, "other/norm_0").output_shape[1] == (None, 8, 3)
    dense = layers.Dense(8, name="dense")
    twice = keras.Model(inputs, dense(dense(inputs)))
    with pytest.raises(ValueError, match="'dense' is called 2 times"):
        insert_token_learner(twice, "dense")
    with pytest.raises(ValueError, match="an input of the model"):
        insert_token_learner(inner, "sequence")
    with pytest.raises(ValueError, match="on one tensor. 'shortcut_0' is called on 2"):
        insert_token_learner(inner, "shortcut_0")
    with pytest.raises(ValueError, match="Received: 'norm2'. Near: norm_1"):
        insert_token_learner(inner, "norm2")

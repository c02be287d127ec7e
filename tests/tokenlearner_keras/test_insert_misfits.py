"""Layers after an inserted TokenLearner: those that cannot take its tokens are named."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tokenlearner_keras as tk
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.encoders import encoder
from tokenlearner_keras.graph import without_weights
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.models.insert import insert_token_learner


def _flattened(x: Any) -> Any:
    return layers.Dense(3, name="misfit")(layers.Flatten()(x))


def _reshaped(x: Any) -> Any:
    # Twelve tokens are one row of the batch; one or four would silently become a part of one.
    x = keras.ops.reshape(x, (-1, 2, 6, 8))
    x._keras_history.operation.name = "misfit"
    return x


def _table(x: Any) -> Any:
    return PositionEmbedding((3, 4), name="misfit")(x)


def _masked(x: Any) -> Any:
    mask = np.ones((1, 12, 12), "bool")
    return layers.MultiHeadAttention(2, 4, name="misfit")(x, x, attention_mask=mask)


class _Silent(layers.Layer):
    """Says that it returns its input's shape, whatever it does."""

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(name="table", shape=(1, *input_shape[1:]))

    def call(self, x: Any) -> Any:
        return x + self.table

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@pytest.mark.parametrize(
    "application",
    [
        "MobileNetV2",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("ResNet50", "EfficientNetB0", "ConvNeXtTiny")
        ),
    ],
)
def test_the_error_of_a_finished_classifier_says_how_to_do_it(application: str) -> None:
    build = getattr(keras.applications, application)
    with without_weights():
        finished = build(weights=None, input_shape=(64, 64, 3), classes=3)
        pooling = next(
            layer.name
            for layer in reversed(finished.layers)
            if isinstance(layer, layers.GlobalAveragePooling2D)
        )
        with pytest.raises(ValueError, match=r"include_top=False\), .*GlobalAveragePooling1D"):
            insert_token_learner(finished, pooling)
    features = build(weights=None, input_shape=(64, 64, 3), include_top=False)
    x = layers.GlobalAveragePooling1D()(tk.TokenLearnerV11(2)(features.output))
    model = keras.Model(features.input, layers.Dense(3)(x))
    assert model.output_shape == (None, 3)
    (maps,) = tk.attention_maps(model, random_inputs(model)).values()
    assert maps.shape == (2, 2, 2, 2)


@pytest.mark.parametrize("num_tokens", [1, 4])
@pytest.mark.parametrize(
    "follow",
    [
        _flattened,
        _table,
        _reshaped,
        layers.Reshape((3, 4, 8), name="misfit"),
        _Silent(name="misfit"),
        _masked,
    ],
    ids=["dense", "table", "reshape_operation", "reshape", "silent", "mask"],
)
def test_a_layer_that_cannot_take_the_tokens_is_named(follow: Any, num_tokens: int) -> None:
    inputs = keras.Input((12, 8))
    x = layers.Dense(8, name="stem")(inputs)
    model = keras.Model(inputs, follow(layers.Activation("relu", name="here")(x)))
    learner = tk.TokenLearnerV11(num_tokens)
    x = random_inputs(model)
    before = to_numpy(model(x)), [len(layer._inbound_nodes) for layer in model.operations]
    with pytest.raises(ValueError, match="'misfit' of type .* cannot take .* pool over them"):
        insert_token_learner(model, "here", learner)
    assert [len(layer._inbound_nodes) for layer in model.operations] == before[1]
    assert np.array_equal(to_numpy(model(x)), before[0])
    # The layer that was not inserted is still free.
    assert insert_token_learner(encoder(), "norm_1", learner).output_shape == (None, 3)


def test_layers_that_take_any_shape_pass() -> None:
    inputs = keras.Input((12, 8))
    x = layers.Activation("relu", name="here")(inputs)
    # Frames folded into the batch and back, a layer that cannot be traced, one that misstates.
    folded = keras.ops.reshape(keras.ops.reshape(x, (-1, 2, 8)), (-1, 16))
    model = keras.Model(inputs, [folded, _Untraceable()(x), _Misstated()(x)])
    inserted = insert_token_learner(model, "here", tk.TokenLearnerV11(4))
    assert [tuple(x.shape) for x in inserted.output] == [(None, 16), (None, 4, 8), (None, 4, 9)]
    # Failed traces leave nothing in the names of what is built next.
    later = layers.Dense(2, name="later")
    later.build((None, 8))
    assert [variable.path for variable in later.weights] == ["later/kernel", "later/bias"]


class _Untraceable(layers.Layer):
    """Works on arrays that are there, not on shapes alone."""

    def call(self, x: Any) -> Any:
        raise RuntimeError("no tracing")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class _Misstated(layers.Layer):
    """Says one channel too many, before and after."""

    def call(self, x: Any) -> Any:
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], input_shape[-1] + 1)


def test_a_shortcut_around_the_layer_is_explained() -> None:
    with pytest.raises(ValueError, match="'shortcut_1' of type Add cannot take .* shortcut"):
        insert_token_learner(encoder(), "attention_1")


def test_pooling_of_grids_is_explained() -> None:
    inputs = keras.Input((6, 4, 8))
    x = layers.Conv2D(8, 3, name="conv")(layers.Activation("relu", name="here")(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x))
    with pytest.raises(ValueError, match="'conv' of type Conv2D .*GlobalAveragePooling1D"):
        insert_token_learner(model, "here")
    with pytest.raises(ValueError, match="'pool' of type GlobalAveragePooling2D"):
        insert_token_learner(model, "pool")

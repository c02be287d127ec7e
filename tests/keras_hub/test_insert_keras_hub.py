"""A TokenLearner in the Vision Transformers of keras_hub."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tokenlearner_keras.models.insert import insert_token_learner
from tokenlearner_keras.models.layer_lookup import inner_layers
from tokenlearner_keras.models.layer_lookup import opened

keras_hub = pytest.importorskip("keras_hub")


def _backbone(**options: Any) -> Any:
    return keras_hub.models.ViTBackbone(
        image_shape=(32, 48, 3),
        patch_size=8,
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=24,
        name="backbone",
        **options,
    )


@pytest.fixture
def images() -> np.ndarray:
    return random(4, 32, 48, 3)


def test_its_products_are_those_of_ours_of_the_same_size() -> None:
    ours = tk.create_model(
        "vit_ti8_d3", image_size=(32, 48), width=16, num_heads=2, mlp_dim=24, classifier="token"
    )
    features = keras.Model(ours.input, ours.get_layer("encoder_norm").output)
    assert tk.count_macs(_backbone()) == tk.count_macs(features)
    inserted = insert_token_learner(_backbone(), "transformer_block_2", tk.TokenLearnerV11(4))
    learned = tk.insert_token_learner(features, "encoder_block_1", tk.TokenLearnerV11(4))
    assert tk.count_macs(inserted) == tk.count_macs(learned)


def test_the_opened_encoder_computes_the_same(images: np.ndarray) -> None:
    backbone = _backbone(dropout_rate=0.1)
    encoder = backbone.get_layer("vit_encoder")
    embedded = keras.Model(backbone.input, encoder.input)(images)
    copy = opened(encoder, encoder.input)
    assert copy.name == "vit_encoder"
    assert len(copy.weights) == len(encoder.weights)
    assert np.allclose(to_numpy(copy(embedded)), to_numpy(backbone(images)), atol=1e-6)


@pytest.mark.parametrize("use_class_token", [True, False])
def test_tokens_from_a_block_on(use_class_token: bool, images: np.ndarray) -> None:
    backbone = _backbone(use_class_token=use_class_token)
    before = to_numpy(backbone(images))
    # v1.0 needs the grid, which is not square: it comes from the patching layer.
    learner = tk.TokenLearner(5, name="learner")
    model = insert_token_learner(backbone, "transformer_block_2", learner)
    front = int(use_class_token)
    assert model.output_shape == (None, front + 5, 16)
    maps = tk.attention_maps(model, images)
    assert {k: v.shape for k, v in maps.items()} == {"vit_encoder/learner": (4, 5, 4, 6)}
    # By hand: the first block, the tokens, the class token in front of them, the rest.
    encoder = backbone.get_layer("vit_encoder")
    dropout, first, *rest = inner_layers(encoder)
    x = first(dropout(keras.Model(backbone.input, encoder.input)(images)))
    tokens = learner(keras.ops.reshape(x[:, front:], (4, 4, 6, 16)))
    x = keras.ops.concatenate([x[:, :front], tokens], axis=1)
    for layer in rest:
        x = layer(x)
    assert np.allclose(to_numpy(model(images)), to_numpy(x), atol=1e-5)
    assert np.array_equal(to_numpy(backbone(images)), before)


def test_a_classifier_trains_and_keeps_its_weights(images: np.ndarray, tmp_path: Path) -> None:
    def build() -> tuple[Any, keras.Model]:
        classifier = keras_hub.models.ViTImageClassifier(_backbone(), num_classes=3)
        path = "backbone/vit_encoder/transformer_block_3"
        return classifier, insert_token_learner(classifier, path, tk.TokenLearnerV11(4))

    classifier, model = build()
    before = to_numpy(classifier(images))
    embedding = classifier.backbone.get_layer("vit_patching_and_embedding")
    position = to_numpy(embedding.weights[0])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, np.arange(4) % 3, epochs=2, verbose=0)
    assert not np.allclose(to_numpy(classifier(images)), before)
    assert not np.array_equal(to_numpy(embedding.weights[0]), position)
    model.save_weights(tmp_path / "model.weights.h5")
    _, copy = build()
    copy.load_weights(tmp_path / "model.weights.h5")
    assert np.array_equal(to_numpy(copy(images)), to_numpy(model(images)))
    (maps,) = tk.attention_maps(model, images).values()
    assert maps.shape == (4, 4, 4, 6) and np.allclose(maps.sum((-1, -2)), 1, atol=1e-5)


def test_before_the_whole_encoder_and_names_that_are_wrong(images: np.ndarray) -> None:
    backbone = _backbone()
    model = insert_token_learner(backbone, "vit_encoder", tk.TokenLearnerV11(4))
    assert model.output_shape == (None, 5, 16)
    assert model.get_layer("vit_encoder") is backbone.get_layer("vit_encoder")
    calls = [len(layer._inbound_nodes) for layer in inner_layers(model.get_layer("vit_encoder"))]
    with pytest.raises(ValueError, match="Near: transformer_block_"):
        insert_token_learner(backbone, "transformer_block_9")
    with pytest.raises(ValueError, match="does not fit 1"):
        insert_token_learner(backbone, "transformer_block_1", grid=(5, 5))
    assert calls == [
        len(layer._inbound_nodes) for layer in inner_layers(backbone.get_layer("vit_encoder"))
    ]

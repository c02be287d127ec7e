"""A TokenLearner in the Vision Transformers of keras_hub."""

from pathlib import Path
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.costs import token_learner_macs
from tests.helpers.costs import vit_macs
from tests.helpers.fresh_process import outputs_elsewhere
from tokenlearner_keras.layer_graph import held_layers
from tokenlearner_keras.models.insert import insert_token_learner

keras_hub = pytest.importorskip("keras_hub")


class _Case(NamedTuple):
    """A backbone with three blocks of 16 channels, and how it names things."""

    name: str
    options: dict[str, Any]
    grid: tuple[int, int]
    front: int
    encoder: str
    block: str
    norm: str | None = None

    def build(self) -> Any:
        sizes = {"patch_size": 8, "num_layers": 3, "num_heads": 2, "hidden_dim": 16}
        shape = {"image_shape": (8 * self.grid[0], 8 * self.grid[1], 3), "name": "backbone"}
        return getattr(keras_hub.models, self.name)(**sizes, **shape, **self.options)

    @property
    def images(self) -> np.ndarray:
        return random(4, 8 * self.grid[0], 8 * self.grid[1], 3)

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]


VIT = _Case(
    *("ViTBackbone", {"mlp_dim": 24}, (4, 6), 1, "vit_encoder", "transformer_block_2"),
)
DEIT = _Case(
    *("DeiTBackbone", {"intermediate_dim": 24}, (4, 6), 2, "deit_encoder", "transformer_block_2"),
)
DINO = _Case(
    *("DINOV2Backbone", {"intermediate_dim": 24}, (4, 4), 1, "backbone_encoder", "layers_1"),
    *("backbone_layernorm",),
)
CASES = {
    "vit": VIT,
    "vit_without_class_token": VIT._replace(
        options={"mlp_dim": 24, "use_class_token": False}, front=0
    ),
    "deit": DEIT,
    "dinov2": DINO,
    "dinov2_registers": DINO._replace(
        options={"intermediate_dim": 24, "num_register_tokens": 4}, front=5
    ),
    # The gated MLP of 24 hidden units has 16, twice, and 16 at its end: as many products.
    "dinov2_swiglu": DINO._replace(options={"intermediate_dim": 24, "use_swiglu_ffn": True}),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> _Case:
    return request.param


def _given(model: keras.Model, images: np.ndarray) -> Any:
    """Returns images in the structure of the model's input, a dictionary in DINOv2."""
    return keras.tree.pack_sequence_as(model.input, [images])


def test_elementwise_operations_of_the_vit_are_those_of_ours_of_the_same_size() -> None:
    ours = tk.create_model(
        "vit_ti8_d3", image_size=(32, 48), width=16, num_heads=2, mlp_dim=24, classifier="token"
    )
    features = keras.Model(ours.input, ours.get_layer("encoder_norm").output)
    assert tk.paper_gflops(VIT.build()) == tk.paper_gflops(features)


def test_products_and_tokens_from_a_block_on(case: _Case) -> None:
    backbone = case.build()
    images = _given(backbone, case.images)
    before = to_numpy(backbone(images))
    sizes = {"patches": case.patches, "width": 16, "mlp_dim": 24, "patch_values": 192}
    tokens = case.front + case.patches
    macs = vit_macs([tokens] * 3, **sizes, num_classes=0)
    assert tk.count_macs(backbone) == macs
    learner = tk.TokenLearnerV11(5, name="learner")
    model = insert_token_learner(backbone, case.block, learner)
    after = vit_macs([tokens] + [case.front + 5] * 2, **sizes, num_classes=0)
    assert tk.count_macs(model) == after + token_learner_macs(case.patches, 16, 5) < macs
    assert model.output_shape == (None, case.front + 5, 16)
    maps = tk.attention_maps(model, images)
    assert {k: v.shape for k, v in maps.items()} == {f"{case.encoder}/learner": (4, 5, *case.grid)}
    # By hand: the first block, the tokens, the others still in front of them, the rest.
    encoder = backbone.get_layer(case.encoder)
    x = keras.Model(backbone.input, encoder.input)(images)
    for layer in held_layers(encoder):
        if layer.name == case.block:
            tokens = learner(keras.ops.reshape(x[:, case.front :], (4, *case.grid, 16)))
            x = keras.ops.concatenate([x[:, : case.front], tokens], axis=1)
        x = layer(x)
        x = x[0] if isinstance(x, tuple) else x  # DeiT's blocks also return attention scores
    x = backbone.get_layer(case.norm)(x) if case.norm else x
    assert np.allclose(to_numpy(model(images)), to_numpy(x), atol=1e-5)
    assert np.array_equal(to_numpy(backbone(images)), before)


def _classifier(case: _Case) -> keras.Model:
    """Returns keras_hub's classifier, or where it has none the backbone as a layer."""
    backbone = case.build()
    if case.name == "DINOV2Backbone":
        inputs = keras.Input(case.images.shape[1:])
        x = keras.layers.GlobalAveragePooling1D()(backbone(_given(backbone, inputs)))
        return keras.Model(inputs, keras.layers.Dense(3)(x))
    name = case.name.replace("Backbone", "ImageClassifier")
    return getattr(keras_hub.models, name)(backbone, num_classes=3)


def test_classifiers_train_and_are_loaded_in_another_process(tmp_path: Path) -> None:
    models = {}
    for name in ("vit", "deit", "dinov2"):
        case = CASES[name]
        classifier, images = _classifier(case), case.images
        learner = tk.TokenLearnerV11(4, name="learner")
        model = insert_token_learner(classifier, f"backbone/{case.encoder}/{case.block}", learner)
        # keras_hub does not keep the exact positions of a DINOv2 that was trained.
        backbone = classifier.get_layer("backbone")
        backbone.layers[1].trainable = name != "dinov2"
        before = to_numpy(classifier(images))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, run_eagerly=True)
        model.fit(images, np.arange(4) % 3, verbose=0)
        assert not np.allclose(to_numpy(classifier(images)), before)
        (maps,) = tk.attention_maps(model, images).values()
        assert maps.shape == (4, 4, *case.grid) and np.allclose(maps.sum((-1, -2)), 1, atol=1e-5)
        models[name] = (model, images)
    for name, outputs in outputs_elsewhere(models, tmp_path, "keras_hub").items():
        model, images = models[name]
        assert np.allclose(outputs, to_numpy(model(images)), atol=1e-6), name


def test_weights_without_the_model(tmp_path: Path) -> None:
    def build() -> keras.Model:
        return insert_token_learner(_classifier(VIT), VIT.block, tk.TokenLearnerV11(4))

    model, copy = build(), build()
    model.save_weights(tmp_path / "model.weights.h5")
    copy.load_weights(tmp_path / "model.weights.h5")
    assert np.array_equal(to_numpy(copy(VIT.images)), to_numpy(model(VIT.images)))


def test_a_model_made_of_the_backbones_output_says_how_to_save_it(tmp_path: Path) -> None:
    backbone = DEIT.build()
    model = keras.Model(backbone.input, keras.layers.Dense(3)(backbone.output[:, 0]))
    model = insert_token_learner(model, DEIT.block, tk.TokenLearnerV11(4))
    assert to_numpy(model(DEIT.images)).shape == (4, 3)
    with pytest.raises(NotImplementedError, match=r"backbone\(images\).* save_weights"):
        model.save(tmp_path / "model.keras")


def test_the_stages_of_a_pyramid_change_with_the_tokens() -> None:
    backbone = DINO.build()
    pyramid = keras.Model(backbone.inputs, backbone.pyramid_outputs)
    inserted = insert_token_learner(pyramid, "layers_1", tk.TokenLearnerV11(4))
    lengths = {name: tensor.shape[1] for name, tensor in inserted.output.items()}
    assert lengths == {"stem": 17, "stage1": 17, "stage2": 5, "stage3": 5}
    images = [DINO.images]
    stages, outputs = inserted(images), pyramid(images)
    assert np.allclose(to_numpy(stages["stage1"]), to_numpy(outputs["stage1"]), atol=1e-6)


def test_before_the_whole_encoder_and_names_that_are_wrong() -> None:
    backbone = VIT.build()
    model = insert_token_learner(backbone, "vit_encoder", tk.TokenLearnerV11(4))
    assert model.output_shape == (None, 5, 16)
    encoder = backbone.get_layer("vit_encoder")
    assert model.get_layer("vit_encoder") is encoder
    calls = [len(layer._inbound_nodes) for layer in held_layers(encoder)]
    found = "Near: transformer_block_.* Found: .*vit_encoder/transformer_block_1, "
    with pytest.raises(ValueError, match=found):
        insert_token_learner(backbone, "transformer_block_9")
    with pytest.raises(ValueError, match="does not fit 1"):
        insert_token_learner(backbone, "transformer_block_1", grid=(5, 5))
    assert calls == [len(layer._inbound_nodes) for layer in held_layers(encoder)]


def test_rotary_positions_are_refused_and_followed() -> None:
    options = {"intermediate_dim": 24, "num_register_tokens": 4}
    case = DINO._replace(name="DINOV3Backbone", options=options)
    backbone = case.build()
    with pytest.raises(ValueError, match="'backbone_encoder' is called on 3. .*DINOv3's"):
        insert_token_learner(backbone, "layers_1")
    after = insert_token_learner(backbone, "backbone_layernorm", tk.TokenLearnerV11(4))
    assert after.output_shape == (None, 1 + 4 + 4, 16)

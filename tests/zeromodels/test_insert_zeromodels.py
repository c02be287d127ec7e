"""A TokenLearner in the Vision Transformers of zeromodels."""

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
from tests.helpers.encoders import input_of
from tests.helpers.fresh_process import outputs_elsewhere
from tokenlearner_keras.models.insert import insert_token_learner

zeromodels = pytest.importorskip("zeromodels")

#: The first layer of the second block.
BLOCK = "blocks_1_layernorm_1"


class _Case(NamedTuple):
    """A model of three blocks of 16 channels."""

    module: str
    name: str
    front: int = 1
    num_classes: int = 0
    options: dict[str, Any] = {}

    def build(self, image_size: Any = 32) -> Any:
        module = pytest.importorskip(f"zeromodels.models.{self.module}")
        sizes = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 1.5}
        classes = {"num_classes": self.num_classes} if self.num_classes else {}
        build = getattr(module, self.name)
        return build(image_size=image_size, **sizes, **classes, **self.options)


CASES = {
    "vit": _Case("vit", "ViTModel"),
    "vit_classifier": _Case("vit", "ViTImageClassify", num_classes=3),
    "deit_distilled": _Case(
        "deit", "DeiTModel", front=2, options={"use_distillation": True, "layer_scale_init": 0.1}
    ),
    "dino": _Case("dino", "DinoViTModel"),
    "dinov2": _Case("dino_v2", "DinoV2Model"),
    # The gated MLP of 24 hidden units has 16, twice, and 16 at its end: as many products.
    "dinov2_swiglu": _Case("dino_v2", "DinoV2Model", options={"use_swiglu": True}),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> _Case:
    return request.param


def test_products_and_tokens_in_front(case: _Case) -> None:
    model, images = case.build(), random(2, 32, 32, 3)
    before = to_numpy(model(images))
    sizes = {"patches": 16, "width": 16, "mlp_dim": 24, "patch_values": 192}
    tokens = case.front + 16
    macs = vit_macs([tokens] * 3, **sizes, num_classes=case.num_classes)
    assert tk.count_macs(model) == macs
    learner = tk.TokenLearnerV11(4, name="learner")
    inserted = insert_token_learner(model, BLOCK, learner)
    after = vit_macs([tokens] + [case.front + 4] * 2, **sizes, num_classes=case.num_classes)
    assert tk.count_macs(inserted) == after + token_learner_macs(16, 16, 4) < macs
    (maps,) = tk.attention_maps(inserted, images).values()
    assert maps.shape == (2, 4, 4, 4)
    # The tokens stand for the patches alone, behind those in front as they were.
    outputs = [input_of(each, BLOCK) for each in (model, inserted)]
    given, learned = (
        to_numpy(keras.Model(each.input, x)(images))
        for each, x in zip((model, inserted), outputs, strict=True)
    )
    assert learned.shape == (2, case.front + 4, 16)
    assert np.array_equal(learned[:, : case.front], given[:, : case.front])
    patches = given[:, case.front :].reshape(2, 4, 4, 16)
    assert np.allclose(learned[:, case.front :], to_numpy(learner(patches)), atol=1e-6)
    assert np.array_equal(to_numpy(model(images)), before)


def test_grids_that_are_not_square() -> None:
    model = CASES["vit"].build((32, 48))
    inserted = insert_token_learner(model, BLOCK, tk.TokenLearner(4))
    (maps,) = tk.attention_maps(inserted, random(2, 32, 48, 3)).values()
    assert maps.shape == (2, 4, 4, 6)
    # zeromodels keeps one number for the size of the images.
    with pytest.raises(ValueError, match=r"\(None, 32, 48, 3\).* save_weights, build"):
        type(inserted).from_config(inserted.get_config())


def test_all_train_and_are_loaded_in_another_process(tmp_path: Path) -> None:
    models, images = {}, random(4, 32, 32, 3)
    for name in ("vit_classifier", "deit_distilled", "dino", "dinov2"):
        model = insert_token_learner(CASES[name].build(), BLOCK, tk.TokenLearnerV11(4))
        before = to_numpy(model(images))
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(images, np.ones((4, *model.output_shape[1:])), verbose=0)
        assert not np.allclose(to_numpy(model(images)), before)
        models[name] = (model, images)
    for name, outputs in outputs_elsewhere(models, tmp_path, "zeromodels.models").items():
        assert np.allclose(outputs, to_numpy(models[name][0](images)), atol=1e-6), name


def test_rotary_positions_are_refused_and_followed(tmp_path: Path) -> None:
    model, images = _Case("dino_v3", "DinoV3ViTModel").build(), random(2, 32, 32, 3)
    with pytest.raises(ValueError, match="of type DinoV3Attention cannot take .* rotary positions"):
        insert_token_learner(model, BLOCK, tk.TokenLearnerV11(4))
    # After the blocks, behind the class token and four registers. The tables are in no file.
    inserted = insert_token_learner(model, "final_layernorm", tk.TokenLearnerV11(4))
    assert inserted.output_shape == (None, 1 + 4 + 4, 16)
    inserted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.allclose(to_numpy(loaded(images)), to_numpy(inserted(images)), atol=1e-6)


def test_layers_found_are_named() -> None:
    with pytest.raises(ValueError, match="Near: blocks_2_.* Found: .*pos_embed, .*blocks_0_lay"):
        insert_token_learner(CASES["dino"].build(), "blocks_3_layernorm_1")

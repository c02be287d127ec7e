from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.arrays import random
from tests.helpers.video_runs import CONVOLUTIONS
from tests.helpers.video_runs import TRANSFORMER
from tokenlearner_keras import build_model
from tokenlearner_keras.models.names import model_config
from trainers.steps.fine_tuning import freeze_layers
from trainers.steps.fine_tuning import rate_scales
from trainers.utils.errors import ConfigurationError

pytestmark = pytest.mark.every_backend

IMAGES = {
    "name": "vit_ti8_d3_tl2at1_fuser",
    "image_size": 16,
    "width": 16,
    "num_heads": 2,
    "mlp_dim": 16,
    "classifier": "token",
}


def _model(keys: dict[str, Any], **changes: Any) -> tuple[Any, keras.Model]:
    config = model_config(num_classes=3, **{**keys, **changes})
    return config, build_model(config)


@pytest.mark.parametrize(
    ("keys", "levels"),
    [
        (
            IMAGES,
            [
                {"embedding", "class_token", "position_embedding"},
                {"encoder_block_0"},
                {"token_learner_0", "encoder_block_1", "token_fuser_0"},
                {"token_learner_1", "encoder_block_2", "token_fuser_1"},
                {"encoder_norm", "head"},
            ],
        ),
        (
            {**TRANSFORMER, "classifier": "map", "representation_size": 4},
            [
                {"embedding", "position_embedding"},
                {"encoder_block_0"},
                {"token_learner_0", "encoder_block_1"},
                {"encoder_norm", "map_head", "pre_logits", "head"},
            ],
        ),
    ],
)
def test_rates_fall_from_the_head_to_the_embedding(
    keys: dict[str, Any], levels: list[set[str]]
) -> None:
    config, model = _model(keys)
    variables = model.trainable_variables
    scales = rate_scales(config, variables, 0.5)
    assert scales is not None
    found: dict[float, set[str]] = {}
    for variable, scale in zip(variables, scales, strict=True):
        found.setdefault(scale, set()).add(variable.path.split("/")[0])
    assert found == {0.5**distance: names for distance, names in enumerate(reversed(levels))}
    assert rate_scales(config, variables, None) is rate_scales(config, variables, 1.0) is None


def test_rates_of_convolutional_blocks() -> None:
    config, model = _model(CONVOLUTIONS)
    variables = model.trainable_variables
    scales = rate_scales(config, variables, 0.5)
    assert scales is not None
    found = {v.path.split("/")[0]: s for v, s in zip(variables, scales, strict=True)}
    # Three blocks, of which the last has the learned tokens.
    starts = {"stem_": 4, "stage_0_block_0": 3, "stage_1_block_0": 2, "stage_1_block_1": 1}
    others = {"token_learner_0": 1, "vector_transformer_0": 1, "token_fuser_0": 1}
    for name, scale in found.items():
        (distance,) = [d for s, d in (starts | others).items() if name.startswith(s)] or [0]
        assert scale == 0.5**distance, name
    assert {name for name, scale in found.items() if scale == 1} == {
        "final_conv",
        "final_conv_norm",
        "pre_logits",
        "head",
    }


def _dense_layers() -> keras.Model:
    """Returns a model with the names of a ViT's layers."""
    names = ["embedding", "position_embedding", *(f"encoder_block_{i}" for i in range(3)), "head"]
    layers = [keras.layers.Dense(2, name=name) for name in names]
    return keras.Sequential([keras.Input((2,)), *layers, keras.layers.ReLU(name="pooling")])


def test_frozen_layers_are_not_trained() -> None:
    model = _dense_layers()
    freeze_layers(model, ("*embedding", "encoder_block_[01]"))
    left = [variable.path.split("/")[-2:] for variable in model.trainable_variables]
    trained = ("encoder_block_2", "head")
    assert left == [[name, part] for name in trained for part in ("kernel", "bias")]


def test_frozen_batch_norms_keep_their_statistics() -> None:
    _, model = _model(CONVOLUTIONS)
    freeze_layers(model, ("stem*", "stage_*"))
    before = {variable.path: np.array(variable) for variable in model.non_trainable_variables}
    clips = random(2, *model.input_shape[1:])
    model(clips, training=True)
    for variable in model.non_trainable_variables:
        moved = not np.array_equal(variable, before[variable.path])
        assert moved == variable.path.startswith("final_conv_norm/moving"), variable.path


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("embeding",), "'embeding' matches no layer .* Did you mean 'embedding'"),
        (("head", "encoder_blok_*"), r"Did you mean 'encoder_block_\*'\? Its layers are embedding"),
        (("pooling",), "that has weights"),
        (("*",), "must leave a layer to train"),
    ],
)
def test_wrong_patterns_are_named(patterns: tuple[str, ...], message: str) -> None:
    model = _dense_layers()
    with pytest.raises(ConfigurationError, match=message):
        freeze_layers(model, patterns)

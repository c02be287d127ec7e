"""The configuration of the convolutional video models."""

import json
from typing import Any

import pytest

import tokenlearner_keras as tk
from tokenlearner_keras.models.names import config_class
from tokenlearner_keras.models.names import model_config

Config = tk.X2Plus1DConfig


def test_defaults_are_the_backbone_at_the_papers_training_size() -> None:
    config = Config()
    assert config.input_shape == (64, 224, 224, 3) and config.grid_size == (7, 7)
    assert config.depths == (3, 5, 11, 7) and config.inner_widths == (54, 108, 216, 432)
    assert config.is_plain and config == model_config("x2plus1d_m")


def test_round_trip_through_json() -> None:
    config = model_config(
        "x2plus1d_m_tokenlearner", 157, 256, 32, depths=[1, 2, 2, 4], dropout=0.5, head_bias=-1
    )
    again = config_class("x2plus1d_m_tokenlearner").from_dict(
        json.loads(json.dumps(config.to_dict()))
    )
    assert again == config and hash(again) == hash(config)
    assert isinstance(again, Config) and again.module == "conv2d_token_learner"
    assert (again.num_classes, again.image_size, again.num_frames) == (157, (256, 256), 32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"module": "mixer"}, "`module` must be one of 'conv2d_conv1d'"),
        ({"depths": (1, 2)}, "each have one number per stage. Received 4 widths"),
        ({"depths": 3}, "one integer per stage"),
        ({"widths": (1, 2, 3, 0)}, r"`widths\[3\]` must be an integer of at least 1"),
        ({"module": "joint", "module_blocks": 7}, "below the depth of the last stage"),
        ({"module_blocks": 0}, "integer of at least 1"),
        ({"num_heads": 3}, "must divide `key_width`"),
        ({"num_frames": None}, "`num_frames`"),
        ({"token_learner_pooling": "max"}, "one of 'sum', 'mean'"),
        ({"fuser_mixing": "clip"}, "one of 'frame', 'video'"),
        ({"classifier": "token"}, "one of 'gap', None"),
        ({"vector_attention": 1}, "True or False"),
        ({"dropout": 1.0}, "below 1"),
        ({"batch_norm_momentum": 1.0}, "below 1"),
        ({"batch_norm_epsilon": 0.0}, "above 0"),
        ({"head_bias": float("nan")}, "finite"),
        ({"image_size": (224, 224, 3)}, "two integers"),
    ],
)
def test_wrong_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**fields)


def test_an_unknown_field_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="X2Plus1DConfig has no field 'depth'. Did you mean"):
        Config.from_dict({"depth": 3})

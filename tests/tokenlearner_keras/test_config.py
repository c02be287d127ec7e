"""The model configuration: checks, defaults, round trip."""

import json
import warnings
from typing import Any

import numpy as np
import pytest

import tokenlearner_keras as tk

Config = tk.VisionTransformerConfig


def test_defaults_are_vit_b16() -> None:
    config = Config()
    assert (config.width, config.depth, config.num_heads, config.mlp_dim) == (
        768,
        12,
        12,
        3072,
    )
    assert config.grid_size == (14, 14) and config.token_learner_block is None


def test_round_trip_through_json() -> None:
    config = Config(
        image_size=(64, 96),
        token_learner="v1.1",
        token_learner_at=9,
        pooling=((3, 2), (5, 1)),
    )
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)


def test_half_depth_is_the_default_place() -> None:
    assert Config(depth=21, token_learner="v1.1").token_learner_block == 10


def test_numpy_integers_are_integers() -> None:
    config = Config(token_learner="v1.1", token_learner_at=np.int64(3), depth=np.int32(6))
    assert config.token_learner_block == 3


def test_an_integer_is_a_square() -> None:
    assert Config(image_size=32, patch_size=8).grid_size == (4, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token_learner": "v1.1", "token_learner_at": 12}, r"in \[0, 12\).*Received: 12"),
        ({"token_learner": "v1.1", "token_learner_at": -1}, r"in \[0, 12\).*Received: -1"),
        (
            {"token_learner": "v1.1", "token_learner_at": 2.0},
            r"in \[0, 12\).*Received: 2.0",
        ),
        ({"token_learner_at": 3}, "need a TokenLearner"),
        ({"token_fuser": True}, "need a TokenLearner"),
        ({"token_learner": "v2"}, "one of None, 'v1.0', 'v1.1'"),
        ({"num_tokens": 0}, "`num_tokens` must be an integer of at least 1"),
        ({"image_size": (8, 224)}, r"at least one whole patch.*\(8, 224\)"),
        ({"image_size": (0, 224)}, "integer of at least 1"),
        ({"image_size": (224, 224, 3)}, "two integers"),
        ({"width": 100}, "must divide"),
        ({"dropout": 1.0}, "at least 0 and below 1"),
        ({"stochastic_depth": -0.1}, "at least 0 and below 1"),
        ({"classifier": "mean"}, "one of 'gap'"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": None}, "num_classes"),
        ({"depth": 0}, "depth"),
        ({"pooling": ((3, 20),)}, "larger than the grid"),
        ({"pooling": ((12, 2),)}, r"in \[0, 12\)"),
        ({"pooling": ((5, 2), (3, 1))}, "increasing blocks"),
        ({"pooling": (3, 2)}, "pairs"),
        ({"pooling": ((8, 2),), "token_learner": "v1.1"}, r"in \[0, 7\)"),
        ({"pooling": ((3.7, 2),)}, "pairs"),
        ({"head_bias": "x"}, "a finite number"),
        ({"token_learner": "v1.1", "token_fuser": "no"}, "True or False"),
        ({"tubelet_size": 2}, "set num_frames"),
        ({"num_frames": 4, "sample_frames": 5}, "must not exceed"),
        ({"num_frames": 1, "tubelet_size": 2}, "at least tubelet_size=2"),
    ],
)
def test_wrong_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**fields)


def test_an_unknown_field_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="no field 'num_token'. Did you mean 'num_tokens'"):
        Config.from_dict({"num_token": 8})


def test_dropped_pixels_are_named_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = tk.create_model("vit_ti10_d1", image_size=(224, 225), num_classes=2)
    messages = [str(w.message) for w in caught if "patch_size" in str(w.message)]
    assert len(messages) == 1
    assert "last 4 rows and 5 columns of pixels are dropped (grid (22, 22))" in messages[0]
    assert model.get_layer("embedding").output.shape == (None, 22, 22, 192)


@pytest.mark.parametrize("name", ["num_frames", "sample_frames"])
def test_dropped_frames_are_named_once(name: str) -> None:
    fields = {"num_frames": 9, "tubelet_size": 4, name: 7}
    with pytest.warns(UserWarning, match="tubelet_size") as caught:
        config = Config(**fields)
    message = f"{name}=7 is not a multiple of tubelet_size=4: the last 3 frames are dropped"
    assert [str(each.message) for each in caught] == [f"{message} (time steps: 1)."]
    assert config.num_time_steps == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Config(**{**fields, name: 8})

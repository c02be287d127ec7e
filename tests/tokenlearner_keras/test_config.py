"""The model configuration: checks, defaults, round trip."""

import dataclasses
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
        num_frames=4,
        token_learner="patch_merger",
        token_learner_at=9,
        per_frame=False,
        pooling=((3, 2), (5, 1)),
        elastic_tokens=(8, 2),
    )
    assert config.elastic_tokens == (2, 8)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)


def test_half_depth_is_the_default_place() -> None:
    assert Config(depth=21, token_learner="v1.1").token_learner_block == 10


def test_what_is_merged_before_each_block() -> None:
    fields = {"token_learner": "merging", "num_tokens": 8}
    assert Config(**fields).num_merged == (44, 44, 44, 32, 16, 8)
    assert Config(**fields, pooling=((6, (2, 8)),)).num_merged == (2, 2, 1, 1, 1, 1)
    video = Config(**fields, num_frames=4, tubelet_size=2, image_size=64, token_learner_at=9)
    assert video.num_merged == (3, 3, 2)
    assert dataclasses.replace(video, per_frame=False).num_merged == (8, 8, 8)
    assert Config(token_learner="v1.1").num_merged == ()


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
        ({"token_learner": "v2"}, "one of None, 'v1.0', 'v1.1', 'mha', 'patch_merger', 'merging'"),
        ({"per_frame": False}, "`per_frame=False` need a TokenLearner"),
        ({"token_learner": "v1.1", "per_frame": False}, "'per_frame': False"),
        ({"token_learner": "v1.1", "per_frame": None}, "`per_frame` must be True or False"),
        ({"token_learner": "merging", "token_fuser": True}, "merged tokens have none"),
        ({"token_learner": "merging", "num_tokens": 3}, r"6 mergings of 196 .* leave 4 to 196"),
        ({"token_learner": "merging", "num_tokens": 197}, r"leave 4 to 196 .* Received: 197"),
        (
            {"token_learner": "merging", "num_tokens": 9, "pooling": ((6, (2, 4)),)},
            r"6 mergings of 8 tokens",
        ),
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
        ({"elastic_tokens": (4, 8)}, "`elastic_tokens` needs learned tokens"),
        ({"token_learner": "v1.1", "elastic_tokens": (4, 16)}, "largest .* num_tokens=8"),
        ({"token_learner": "v1.1", "elastic_tokens": (8, 4, 4)}, "different numbers"),
        ({"token_learner": "v1.1", "elastic_tokens": 8}, r"integers, such as \(4, 8, 16\)"),
        ({"token_learner": "v1.1", "elastic_tokens": (0, 8)}, r"elastic_tokens\[0\]"),
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

"""Loading parameters of the reference: everything fits, or nothing changes."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random_parameters
from tokenlearner_keras.weights.reference import reference_parameters

pytestmark = pytest.mark.every_backend


def _model(**overrides: object) -> keras.Model:
    return tk.create_model(
        "vivit_ti8_d2_tl4at1" if "num_frames" in overrides else "vit_ti8_d2_tl4at1",
        image_size=16,
        num_classes=3,
        **{"width": 8, "num_heads": 2, "mlp_dim": 12, **overrides},
    )


def test_every_trainable_variable_has_one_name() -> None:
    for classifier in ("gap", "token", "map"):
        model = _model(classifier=classifier, representation_size=6)
        named = reference_parameters(model)
        assert len(named) == len(model.trainable_variables)


VIDEO = {"num_frames": 4, "tubelet_size": 2}
FUSER = {"token_learner_at": 0, "token_fuser": True}
#: Models with other tokenizers than v1.1, without a fuser.
OTHERS: dict[str, dict[str, Any]] = {
    "multi-head": {"token_learner": "mha"},
    "patch merger": {"token_learner": "patch_merger"},
    "merging": {"token_learner": "merging", "num_tokens": 2},
    "clips": {**VIDEO, "per_frame": False},
}
FUSERS: dict[str, dict[str, Any]] = {
    "image": FUSER,
    "image, linear mask": {**FUSER, "fuser_bottleneck_dim": None},
    "v1.0": {**FUSER, "token_learner": "v1.0"},
    "video": {**FUSER, **VIDEO},
    "video, linear mask": {**FUSER, **VIDEO, "fuser_bottleneck_dim": None},
    "video, mixed over time": {**FUSER, **VIDEO, "fuser_mixing": "video"},
    "video, both": {**FUSER, **VIDEO, "fuser_mixing": "video", "fuser_bottleneck_dim": None},
    "per-frame video": {**FUSER, "num_frames": 2, "tubelet_size": 1},
}


def _nested(params: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in params.items():
        *path, leaf = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


@pytest.mark.parametrize("arrange", [dict, _nested])
@pytest.mark.parametrize(
    "fields", [{}, *OTHERS.values(), *FUSERS.values()], ids=["no fuser", *OTHERS, *FUSERS]
)
def test_flat_and_nested_trees_load(fields: dict[str, Any], arrange: Callable[..., Any]) -> None:
    model = _model(**fields)
    params = random_parameters(model)
    assert len(params) == len(model.trainable_variables)
    tk.load_reference_params(model, arrange(params))
    for name, parameter in reference_parameters(model).items():
        loaded = keras.ops.convert_to_numpy(parameter.variable)
        assert np.array_equal(loaded, params[name].reshape(loaded.shape)), name


def test_names_and_shapes_of_a_fuser() -> None:
    def shapes(**fields: Any) -> dict[str, tuple[int, ...]]:
        prefix = "Transformer/TokenFuser_1/"
        named = reference_parameters(_model(**{**FUSER, **fields}))
        return {
            name.removeprefix(prefix): parameter.shape
            for name, parameter in named.items()
            if name.startswith(prefix) and name.endswith("kernel")
        }

    mlp = {"token_masking/Dense_0/kernel": (8, 64), "token_masking/Dense_1/kernel": (64, 4)}
    linear = {"token_masking/kernel": (8, 4)}
    assert shapes(**VIDEO) == {"Dense_0/kernel": (4, 4), **mlp}
    assert shapes(**VIDEO, fuser_bottleneck_dim=None) == {"Dense_0/kernel": (4, 4), **linear}
    assert shapes(**VIDEO, fuser_mixing="video")["Dense_0/kernel"] == (8, 8)


@pytest.mark.parametrize("fields", FUSERS.values(), ids=FUSERS)
def test_not_strict_keeps_what_a_plain_models_tree_lacks(fields: dict[str, Any]) -> None:
    """A tree without TokenLearner and fuser loads all the rest of the model."""
    model = _model(**fields)
    named = reference_parameters(model)
    before = {name: keras.ops.convert_to_numpy(each.variable) for name, each in named.items()}
    own = {name for name in before if "TokenLearner" in name or "TokenFuser" in name}
    assert own
    params = {name: value for name, value in random_parameters(model).items() if name not in own}
    with pytest.raises(ValueError, match=r"TokenFuser_0/Dense_0/kernel: missing"):
        tk.load_reference_params(model, params)
    tk.load_reference_params(model, _nested(params), strict=False)
    for name, parameter in named.items():
        loaded = keras.ops.convert_to_numpy(parameter.variable)
        expected = before[name] if name in own else params[name].reshape(loaded.shape)
        assert np.array_equal(loaded, expected), name


def test_missing_left_over_and_misshapen_are_all_named_and_nothing_is_written() -> None:
    model = _model()
    before = model.get_weights()
    params = random_parameters(model)
    params["output_projection/kernal"] = params.pop("output_projection/kernel")
    params["embedding/bias"] = np.zeros(9, "float32")
    with pytest.raises(ValueError) as caught:
        tk.load_reference_params(model, params)
    message = str(caught.value)
    assert "output_projection/kernel: missing" in message
    assert "output_projection/kernal: left over" in message
    assert "is it output_projection/kernel?" in message
    assert r"embedding/bias: expected shape (8,), received (9,)" in message
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(old, new)


def test_not_strict_skips_what_one_side_lacks() -> None:
    model = _model()
    params = random_parameters(model)
    del params["embedding/bias"]
    params["cls"] = np.zeros((1, 1, 8), "float32")
    tk.load_reference_params(model, params, strict=False)
    kernel = reference_parameters(model)["embedding/kernel"].variable
    assert np.array_equal(keras.ops.convert_to_numpy(kernel), params["embedding/kernel"])


@pytest.mark.parametrize("shape", [(2, 4, 8), (8, 4, 2), (8, 8)])
def test_kernels_of_other_heads_are_refused(shape: tuple[int, ...]) -> None:
    """The same number of entries in another arrangement is not the same kernel."""
    model = _model()
    params = random_parameters(model)
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"
    assert params[name].shape == (8, 2, 4)
    params[name] = params[name].reshape(shape)
    with pytest.raises(ValueError, match=r"query/kernel: expected shape \(8, 2, 4\)"):
        tk.load_reference_params(model, params)


def test_targets_that_cannot_be_loaded() -> None:
    with pytest.raises(ValueError, match="is not built"):
        tk.load_reference_params(tk.TokenLearner(4), {})
    other = keras.Sequential([keras.Input((4,)), keras.layers.PReLU()])
    with pytest.raises(ValueError, match="no name for"):
        tk.load_reference_params(other, {})


def test_a_model_with_an_inserted_mha_layer() -> None:
    model = tk.create_model("vit_ti8_d2", image_size=16, width=8, num_heads=2, mlp_dim=8)
    model = tk.insert_token_learner(model, "encoder_block_1", tk.TokenLearnerMHA(3, 2))
    names = reference_parameters(model)
    assert "Transformer/TokenLearnerMHA_0/tokens" in names
    queries = np.full((1, 3, 8), 2.0, "float32")
    wrapped = {"params": {"Transformer": {"TokenLearnerMHA_0": {"tokens": queries}}}}
    tk.load_reference_params(model, wrapped, strict=False)
    loaded = names["Transformer/TokenLearnerMHA_0/tokens"].variable
    assert np.array_equal(keras.ops.convert_to_numpy(loaded), queries)


@pytest.mark.parametrize("params", [None, [1], "weights"])
def test_parameters_of_another_kind_are_refused(params: object) -> None:
    with pytest.raises(ValueError, match="`params` must be a mapping"):
        tk.load_reference_params(tk.TokenLearner(2), params)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer or model as the target"):
        tk.load_reference_params("model", {})  # type: ignore[arg-type]

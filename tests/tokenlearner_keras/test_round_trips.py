"""Transformers of every kind and listed name: config, files, training, gradients."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import ON_JAX
from tests.helpers.round_trips import check_files
from tests.helpers.round_trips import fit_three_steps
from tests.helpers.round_trips import is_dead
from tests.helpers.round_trips import needs_xla
from tests.helpers.round_trips import quick_ones
from tests.helpers.round_trips import waken
from tokenlearner_keras.models.names import model_config

SMALL: dict[str, Any] = {
    "image_size": (40, 36),
    "patch_size": (4, 4),
    "width": 16,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 5,
    "num_tokens": 4,
}
# A small model for every branch of the builder; some share one.
BRANCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("vit_ti4_d2", {"representation_size": 8}),
    "v1.0, class token": (
        "vit_ti4_d2_tl4at1_v10",
        {"classifier": "token", "token_learner_pooling": "mean"},
    ),
    "v1.1": ("vit_ti4_d2_tl4at1", {"dropout": 0.1, "attention_dropout": 0.1}),
    "fuser, class token": ("vit_ti4_d3_tl4at1_fuser", {"classifier": "token"}),
    "linear fuser": ("vit_ti4_d2_tl4at1_v10_fuser_linear", {"stochastic_depth": 0.1}),
    "pooling, map head": ("vit_ti4_d2_pool4at0_pool2at1", {"classifier": "map"}),
    "tubelets, video fuser": (
        "vivit_ti4x2_d2_tl4at1_fuser",
        {"fuser_mixing": "video", "tubelet_inflation": "average"},
    ),
    "sampled frames": ("vivit_ti4_d2_tl4at1", {"sample_frames": 2, "classifier": "gmp"}),
    "multi-head, class token": ("vit_ti4_d2_tl4at1_mha", {"classifier": "token"}),
    "patch merger, fuser": ("vit_ti4_d2_tl4at1_pm_fuser", {}),
    "clips": ("vivit_ti4x2_d2_tl4at1_st", {"classifier": "token"}),
    "clips, v1.0, fuser": ("vivit_ti4x2_d2_tl4at1_st_v10_fuser", {}),
    "merging": ("vit_ti4_d3_tl24at1_merge", {"num_tokens": 24, "classifier": "token"}),
    "merging by frame": ("vivit_ti4x2_d3_tl24at1_merge", {"num_tokens": 24}),
}
# At their own depth.
DEEP_NAMES = ("vit_b16", "vit_b16_tl16at3", "vit_b16_tl16at6_v10_fuser_linear")
#: The goldens compare the outputs and gradients of the reference's models on every backend.
ON_EVERY_BACKEND = ("v1.1", "tubelets, video fuser", "clips", "merging")
branches = pytest.mark.parametrize(
    "branch",
    [
        pytest.param(
            name, marks=pytest.mark.every_backend if name in ON_EVERY_BACKEND else pytest.mark.slow
        )
        for name in BRANCHES
    ],
)


def _create(name: str, **overrides: Any) -> keras.Model:
    if name.startswith("vivit"):
        overrides.setdefault("num_frames", 4)
    return tk.create_model(name, **{**SMALL, **overrides})


def branch_model(branch: str) -> keras.Model:
    name, overrides = BRANCHES[branch]
    return _create(name, **overrides)


def _kinds() -> list[tuple[str, dict[str, Any]]]:
    """Returns a listed name for every model that differs once its parts stand early on.

    Width, patches and number of tokens are the same for all, the order of the parts is each
    model's own: what a name builds is tested in a few blocks.
    """
    kinds: dict[Any, tuple[str, dict[str, Any]]] = {}
    for name in tk.list_models("vi*"):
        config = model_config(name, **SMALL)
        pooling = tuple((1 + index, size) for index, (_, size) in enumerate(config.pooling))
        overrides = {
            "depth": 3,
            "pooling": pooling,
            "token_learner_at": None if config.token_learner is None else 1,
        }
        if config.token_learner == "merging":
            overrides["num_tokens"] = 24  # of 90, in two blocks
        kinds.setdefault(dataclasses.replace(config, **overrides), (name, overrides))
    return list(kinds.values())


@pytest.mark.parametrize("name", tk.list_models("vi*"))
@pytest.mark.filterwarnings("ignore:image_size")
def test_the_configuration_of_a_listed_model_comes_back(name: str) -> None:
    for overrides in ({}, SMALL):
        config = model_config(name, **overrides)
        written = json.dumps(config.to_dict())
        assert type(config).from_dict(json.loads(written)) == config


@branches
def test_a_model_comes_back_from_its_files(branch: str, tmp_path: Path) -> None:
    model = branch_model(branch)
    waken(model)
    check_files(model, branch_model(branch), random_inputs(model), tmp_path)


@pytest.mark.parametrize("name", quick_ones(DEEP_NAMES, ()))
def test_a_listed_model_comes_back_from_its_files(name: str, tmp_path: Path) -> None:
    _check_files(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "overrides"), _kinds())
def test_a_listed_kind_of_model_comes_back_from_its_files(
    name: str, overrides: dict[str, Any], tmp_path: Path
) -> None:
    _check_files(tmp_path, name, **overrides)


def _check_files(folder: Path, name: str, **overrides: Any) -> None:
    model = _create(name, **overrides)
    waken(model)
    check_files(model, _create(name, **overrides), random_inputs(model), folder)


def _loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _with_and_without_jit() -> Iterator[Any]:
    """Yields every branch as its backend runs best, and two of them in the other way."""
    for branch in BRANCHES:
        is_quick = branch == "v1.1"
        backends = [pytest.mark.every_backend] * (branch in ON_EVERY_BACKEND)
        quick_or_slow = [] if is_quick else [pytest.mark.slow]
        yield pytest.param(branch, ON_JAX, marks=[*backends, *quick_or_slow])
        other = pytest.mark.slow if is_quick and not ON_JAX else pytest.mark.extra
        yield pytest.param(branch, not ON_JAX, marks=[needs_xla, other])


@pytest.mark.parametrize(("branch", "jit_compile"), _with_and_without_jit())
def test_a_model_trains(branch: str, jit_compile: bool) -> None:
    model = branch_model(branch)
    fit_three_steps(model, _loss(), random_inputs(model), np.array([1, 3]), jit_compile)


@pytest.mark.extra
@pytest.mark.parametrize(("name", "overrides"), _kinds())
def test_a_listed_kind_of_model_trains(name: str, overrides: dict[str, Any]) -> None:
    _check_training(name, **overrides)


def _check_training(name: str, **overrides: Any) -> None:
    model = _create(name, **overrides)
    # A fuser's first steps are large and, after v1.0, the first tokens nearly equal.
    waken(model)
    fit_three_steps(model, _loss(), random_inputs(model), np.array([1, 3]), jit_compile=ON_JAX)


@branches
def test_a_model_in_bfloat16_is_near_float32(branch: str) -> None:
    name, overrides = BRANCHES[branch]
    _check_bfloat16(name, **overrides)


@pytest.mark.extra
@pytest.mark.parametrize(("name", "overrides"), _kinds())
def test_a_listed_kind_of_model_in_bfloat16_is_near_float32(
    name: str, overrides: dict[str, Any]
) -> None:
    _check_bfloat16(name, **overrides)


def _check_bfloat16(name: str, **overrides: Any) -> None:
    full = _create(name, **overrides)
    waken(full)
    keras.config.set_dtype_policy("mixed_bfloat16")
    low = _create(name, **overrides)
    low.set_weights(full.get_weights())
    logits = low(random_inputs(full))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert low.get_layer("encoder_block_0").compute_dtype == "bfloat16"
    expected = to_numpy(full(random_inputs(full)))
    assert np.abs(to_numpy(logits) - expected).max() < 0.1 * np.abs(expected).max()


@branches
def test_gradients_reach_every_parameter_of_a_new_model(branch: str, gradients: Any) -> None:
    """By the second step, by the third with a fuser: head and mixing start at zero."""
    model = branch_model(branch)
    x, cotangent = random_inputs(model), random(2, 5, seed=7)
    variables = list(model.trainable_variables)
    reached = {variable.path: 0.0 for variable in variables}
    for _ in range(3 if "fuser" in branch else 2):
        _, found = gradients(model, [x], cotangent, variables)
        largest = max(float(np.abs(gradient).max()) for gradient in found)
        for variable, gradient in zip(variables, found, strict=True):
            size = float(np.abs(gradient).max())
            reached[variable.path] = max(reached[variable.path], size / largest)
            # Each on its own scale: the fuser's first gradients are a thousandfold.
            variable.assign_sub(0.1 * gradient / max(size, 1e-3))
    for variable in variables:
        size = reached[variable.path]
        assert size < 1e-6 if is_dead(model, variable) else size > 0, f"{variable.path}: {size:.1e}"


@pytest.mark.slow
def test_a_full_size_model_comes_back_from_its_file(tmp_path: Path) -> None:
    model = tk.create_model("vit_b16_tl8at6", image_size=224)
    waken(model)
    x = random_inputs(model, batch=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(to_numpy(loaded(x)), to_numpy(model(x)))
    assert loaded.count_params() == model.count_params() == 86_617_392

"""What is no public ViT checkpoint of the model is refused, and changes nothing."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.goldens import GOLDENS
from tests.helpers.goldens import golden_model
from tests.helpers.vit_checkpoints import KERNEL
from tests.helpers.vit_checkpoints import POSITIONS
from tests.helpers.vit_checkpoints import checkpoint_arrays
from tests.helpers.vit_checkpoints import save_checkpoint
from tokenlearner_keras.weights.augreg import load_npz


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": (4, 4)}, r"embedding/kernel: expected shape \(4, 4, 3, 24\), received"),
        ({"width": 48}, r"expected shape \(1, positions, 48\), received \(1, 17, 24\)"),
        ({"depth": 4}, "encoder blocks: expected 4, received 3"),
        ({"depth": 2}, "encoder blocks: expected 2, received 3"),
        ({"num_heads": 4}, r"query/kernel: expected shape \(24, 4, 6\), received \(24, 3, 8\)"),
        ({"mlp_dim": 96}, "Dense_0/kernel: expected shape"),
    ],
)
def test_the_checkpoint_of_another_model_changes_nothing(
    fields: dict[str, Any], message: str
) -> None:
    model = golden_model(**fields)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as caught:
        load_npz(model, CHECKPOINT)
    assert "width 24, 3 blocks, patches (8, 8), 3 heads, MLP width 48" in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "fields", [{}, {"num_classes": 5, "classifier": "token"}, {"image_size": (48, 48)}]
)
def test_strict_refuses_any_difference_and_changes_nothing(fields: dict[str, Any]) -> None:
    model = golden_model(**fields)
    before = model.get_weights()
    with pytest.raises(ValueError, match="does not match .* exactly"):
        load_npz(model, CHECKPOINT, strict=True)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_files_that_are_no_vit_checkpoint(tmp_path: Path) -> None:
    model = golden_model()
    with pytest.raises(ValueError, match="not a public ViT checkpoint"):
        load_npz(model, GOLDENS / "augreg_expected.npz")
    with pytest.raises(ValueError, match="no encoder block"):
        load_npz(model, save_checkpoint(tmp_path, {KERNEL: checkpoint_arrays()[KERNEL]}))
    twice = {**checkpoint_arrays(), "pos_embedding": checkpoint_arrays()[POSITIONS]}
    with pytest.raises(ValueError, match="twice"):
        load_npz(model, save_checkpoint(tmp_path, twice))
    page = tmp_path / "page.npz"
    page.write_text("<!doctype html><title>Sign in</title>")
    with pytest.raises(ValueError, match="web page"):
        load_npz(model, page)
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        load_npz(model, tmp_path / "absent.npz")


def test_targets_and_arguments_that_are_refused() -> None:
    with pytest.raises(ValueError, match="model of tk.build_model"):
        load_npz(tk.TokenLearner(4), CHECKPOINT)
    with pytest.raises(ValueError, match="no name for"):
        load_npz(keras.Sequential([keras.Input((4,)), keras.layers.PReLU()]), CHECKPOINT)
    with pytest.raises(ValueError, match="inflation"):
        load_npz(golden_model(), CHECKPOINT, inflation="middle")

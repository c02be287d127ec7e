"""Public ViT checkpoints (.npz) in models with other heads and tokens, or the very same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.arrays import random
from tests.helpers.arrays import random_parameters
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.goldens import golden_model
from tests.helpers.vit_checkpoints import KERNEL
from tests.helpers.vit_checkpoints import POSITIONS
from tests.helpers.vit_checkpoints import assert_golden_logits
from tests.helpers.vit_checkpoints import checkpoint_arrays
from tests.helpers.vit_checkpoints import parameter_value
from tests.helpers.vit_checkpoints import save_checkpoint
from tokenlearner_keras.weights.augreg import load_npz
from tokenlearner_keras.weights.reference import reference_parameters


@pytest.mark.every_backend
def test_the_golden_checkpoint_gives_the_references_logits() -> None:
    model = golden_model(classifier="token")
    report = load_npz(model, CHECKPOINT, strict=True)
    assert_golden_logits(model)
    assert report.is_exact
    assert set(report.loaded) >= {"cls", "head/kernel", KERNEL, POSITIONS}
    assert len(report.loaded) == len(model.trainable_variables)
    assert str(report) == f"{len(report.loaded)} parameters loaded as they are"


def test_without_a_class_token_its_row_is_dropped() -> None:
    model = golden_model()
    report = load_npz(model, CHECKPOINT)
    assert report.left_over == ("cls",)
    assert not (report.missing or report.skipped or report.resized)
    np.testing.assert_array_equal(
        parameter_value(model, POSITIONS), checkpoint_arrays()[POSITIONS][:, 1:]
    )


@pytest.mark.parametrize("with_row", [False, True])
def test_a_file_without_a_class_token(with_row: bool, tmp_path: Path) -> None:
    arrays = checkpoint_arrays()
    del arrays["cls"]
    if not with_row:
        arrays[POSITIONS] = arrays[POSITIONS][:, 1:]
    path = save_checkpoint(tmp_path, arrays)
    model = golden_model(classifier="token")
    before = parameter_value(model, POSITIONS)
    assert load_npz(model, path).missing == ("cls",)
    first = arrays[POSITIONS][:, :1] if with_row else before[:, :1]
    expected = np.concatenate([first, checkpoint_arrays()[POSITIONS][:, 1:]], axis=1)
    np.testing.assert_array_equal(parameter_value(model, POSITIONS), expected)
    load_npz(golden_model(), path, strict=True)


def test_a_head_for_other_classes_is_skipped() -> None:
    model = golden_model(classifier="token", num_classes=5, head_bias=-3.0)
    report = load_npz(model, CHECKPOINT)
    assert report.skipped == ("head/bias", "head/kernel")
    assert not np.any(parameter_value(model, "output_projection/kernel"))
    np.testing.assert_array_equal(
        parameter_value(model, "output_projection/bias"), np.full(5, -3.0)
    )


def test_pre_logits_are_optional(tmp_path: Path) -> None:
    report = load_npz(golden_model(representation_size=24), CHECKPOINT)
    assert report.missing == ("pre_logits/bias", "pre_logits/kernel")
    kernel = random(24, 24)
    extra = {"pre_logits/kernel": kernel, "pre_logits/bias": kernel[0]}
    path = save_checkpoint(tmp_path, {**checkpoint_arrays(), **extra})
    assert load_npz(golden_model(), path).left_over == ("cls", *sorted(extra))
    model = golden_model(representation_size=24, classifier="token")
    load_npz(model, path, strict=True)
    np.testing.assert_array_equal(parameter_value(model, "pre_logits/kernel"), kernel)
    skipped = load_npz(golden_model(representation_size=16), path).skipped
    assert skipped == ("head/bias", "head/kernel", *sorted(extra))


def test_without_a_head() -> None:
    report = load_npz(golden_model(classifier=None), CHECKPOINT)
    assert report.left_over == ("cls", "head/bias", "head/kernel")


@pytest.mark.parametrize("token_learner", ["v1.0", "v1.1", "mha", "patch_merger"])
@pytest.mark.parametrize("token_fuser", [False, True])
def test_token_learner_and_fuser_keep_their_weights(token_learner: str, token_fuser: bool) -> None:
    model = golden_model(token_learner=token_learner, token_fuser=token_fuser, classifier="token")
    before = {name: parameter_value(model, name) for name in reference_parameters(model)}
    report = load_npz(model, CHECKPOINT)
    kinds = ("TokenLearner", "TokenFuser", "PatchMerger")
    own = {name for name in before if any(kind in name for kind in kinds)}
    assert set(report.missing) == own and own
    assert not (report.left_over or report.skipped or report.resized)
    for name in own:
        np.testing.assert_array_equal(parameter_value(model, name), before[name])
    assert f"{len(own)} missing: " in str(report)
    with pytest.raises(ValueError, match="strict=True"):
        load_npz(model, CHECKPOINT, strict=True)


def test_merging_takes_a_plain_models_weights() -> None:
    model = golden_model(token_learner="merging", token_learner_at=1, classifier="token")
    assert model.get_layer("token_merging_0").num_merged == 4
    assert load_npz(model, CHECKPOINT, strict=True).is_exact


@pytest.mark.parametrize(
    "fields",
    [
        {"token_learner": "v1.1", "classifier": "gap"},
        {"token_learner": "v1.0", "token_fuser": True, "classifier": "map"},
        {"num_frames": 6, "tubelet_size": 2, "token_learner": "v1.1", "token_fuser": True},
        {"num_frames": 4, "tubelet_size": 1, "image_size": (16, 16)},
    ],
)
def test_parameters_under_the_references_names_come_back_exactly(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    """TokenLearner, fuser, map head and video tables, as the reference would write them."""
    arrays = random_parameters(golden_model(**fields))
    model = golden_model(**fields)
    load_npz(model, save_checkpoint(tmp_path, arrays), strict=True)
    for name, array in arrays.items():
        np.testing.assert_array_equal(parameter_value(model, name), array)

"""Public ViT checkpoints whose arrays have other names, layouts or types."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers.goldens import CHECKPOINT
from tests.helpers.goldens import golden_model
from tests.helpers.vit_checkpoints import KERNEL
from tests.helpers.vit_checkpoints import POSITIONS
from tests.helpers.vit_checkpoints import Arrays
from tests.helpers.vit_checkpoints import assert_golden_logits
from tests.helpers.vit_checkpoints import checkpoint_arrays
from tests.helpers.vit_checkpoints import parameter_value
from tests.helpers.vit_checkpoints import save_checkpoint
from tokenlearner_keras.weights.augreg import load_npz
from tokenlearner_keras.weights.reference import reference_parameters

BLOCK = "Transformer/encoderblock_"


def _renumbered(arrays: Arrays) -> Arrays:
    numbers = {
        "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
        "LayerNorm_2": "LayerNorm_1",
        "MlpBlock_3": "MlpBlock_0",
    }
    for old, new in numbers.items():
        arrays = {key.replace(f"/{old}/", f"/{new}/"): value for key, value in arrays.items()}
    return arrays


def _prefixed(prefix: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {f"{prefix}{key}": value for key, value in arrays.items()}


def _stacked(arrays: Arrays) -> Arrays:
    """The blocks in one array each, as big_vision's scan leaves them."""
    arrays = _renumbered(arrays)
    stacked = {key: value for key, value in arrays.items() if BLOCK not in key}
    for key in arrays:
        if f"{BLOCK}0/" in key:
            parts = [arrays[key.replace("_0/", f"_{index}/", 1)] for index in range(3)]
            stacked[key.replace("encoderblock_0", "encoderblock")] = np.stack(parts)
    return stacked


def _positions_on_top(arrays: Arrays) -> Arrays:
    """big_vision's place, and its order: positions first, then a class token without one."""
    table = arrays.pop(POSITIONS)
    arrays["cls"] = arrays["cls"] + table[:, :1]
    return {**arrays, "pos_embedding": table[:, 1:]}


def _in_the_encoder(arrays: Arrays) -> Arrays:
    table = arrays.pop(POSITIONS)
    return {**arrays, "Transformer/pos_embedding": table}


def _reference_head(arrays: Arrays) -> Arrays:
    return {key.replace("head/", "output_projection/"): value for key, value in arrays.items()}


@pytest.mark.parametrize(
    "change",
    [
        _renumbered,
        _prefixed("params/"),
        _prefixed("opt/target/"),
        _prefixed("params/img/"),
        _stacked,
        _positions_on_top,
        _in_the_encoder,
        _reference_head,
    ],
)
def test_other_names_give_the_same_logits(
    change: Callable[[Arrays], Arrays], tmp_path: Path
) -> None:
    model = golden_model(classifier="token")
    load_npz(model, save_checkpoint(tmp_path, change(checkpoint_arrays())), strict=True)
    assert_golden_logits(model)


def test_what_the_file_lacks_or_has_besides_is_named(tmp_path: Path) -> None:
    arrays = _prefixed("params/")(checkpoint_arrays())
    del arrays["params/Transformer/encoder_norm/bias"]
    arrays = {**arrays, "opt/count": np.zeros(1), "params/Transformer/other/scale": np.zeros(1)}
    model = golden_model(classifier="token")
    report = load_npz(model, save_checkpoint(tmp_path, arrays))
    assert report.missing == ("Transformer/encoder_norm/bias",)
    assert report.left_over == ("opt/count", "params/Transformer/other/scale")
    named = {*report.loaded, *report.resized, *report.skipped, *report.missing}
    assert len(named) == len(model.trainable_variables)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_float_types(dtype: str, tmp_path: Path) -> None:
    arrays = checkpoint_arrays()
    if dtype == "bfloat16":
        # What numpy.savez makes of ml_dtypes' type: two bytes without one.
        singles = {key: value.astype("float32") for key, value in arrays.items()}
        halves = {key: value.view("uint32") >> 16 for key, value in singles.items()}
        stored = {key: value.astype("uint16").view("V2") for key, value in halves.items()}
        expected = {key: (value << 16).view("float32") for key, value in halves.items()}
    else:
        stored = {key: value.astype(dtype) for key, value in arrays.items()}
        expected = {key: value.astype("float32") for key, value in stored.items()}
    model = golden_model(classifier="token")
    load_npz(model, save_checkpoint(tmp_path, stored), strict=True)
    for key in (KERNEL, POSITIONS, "cls"):
        np.testing.assert_array_equal(parameter_value(model, key), expected[key])


def test_arrays_that_are_no_floats(tmp_path: Path) -> None:
    arrays = checkpoint_arrays()
    arrays["embedding/bias"] = arrays["embedding/bias"].astype("int32")
    with pytest.raises(ValueError, match="'embedding/bias' as int32"):
        load_npz(golden_model(), save_checkpoint(tmp_path, arrays))


def test_weights_stay_in_the_models_own_type() -> None:
    keras.config.set_dtype_policy("bfloat16")
    model = golden_model(classifier="token")
    load_npz(model, CHECKPOINT, strict=True)
    kernel = reference_parameters(model)[KERNEL].variable
    assert kernel.dtype == "bfloat16"
    loaded = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))
    np.testing.assert_allclose(loaded, checkpoint_arrays()[KERNEL], rtol=2**-8)

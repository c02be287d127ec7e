"""Quantised layers and models come back from their files."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.processes import PATIENCE
from tests.helpers.processes import start
from tests.helpers.round_trips import check_files
from tests.helpers.round_trips import quick_ones
from tests.helpers.round_trips import waken
from tests.helpers.small_models import small_model
from tests.tokenlearner_keras.test_layer_round_trips import LAYERS
from tests.tokenlearner_keras.test_layer_round_trips import layer_inputs
from tests.tokenlearner_keras.test_round_trips import BRANCHES
from tests.tokenlearner_keras.test_round_trips import branch_model

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize")

#: Layers with Dense layers inside; Keras quantises nothing in the others.
QUANTIZED = (
    "v1.1",
    "mha",
    "v1.1 of clips",
    "mha of clips",
    "fuser",
    "fuser linear",
    "fuser of clips",
    "first of v1.1",
    "first of mha",
    "fuser of the first",
    "linear fuser of the first",
    "fuser plain",
    "fuser video",
    "encoder block",
    "self-attention",
    "attention",
    "mlp",
    "attention pooling",
    "space_time",
    "space",
    "time",
    "vector transformer",
    "transformer of heads",
)
modes = pytest.mark.parametrize("mode", ["int8", "int4"])


def _one_layer(name: str, **arguments: Any) -> keras.Model:
    """A model of one layer, its weights off their initial values."""
    make, shapes = LAYERS[name]
    inputs = [keras.Input(shape) for shape in shapes]
    model = keras.Model(inputs, make(**arguments)(*inputs))
    waken(model)
    return model


def _check_round_trips(model: keras.Model, inputs: Any, folder: Path) -> None:
    copy = type(model).from_config(model.get_config())
    check_files(model, copy, inputs, folder)


def _modes(model: keras.Model) -> set[str | None]:
    """The quantisation modes of all Dense layers in a model."""
    layers = model._flatten_layers()
    return {each.quantization_mode for each in layers if isinstance(each, keras.layers.Dense)}


@pytest.mark.every_backend
def test_quantized_models_come_back_in_another_process(tmp_path: Path) -> None:
    cases = {
        "int8": ("vivit_ti8x2_d2_tl4at1_v10_fuser_linear", "mixed_bfloat16"),
        "int4": ("vit_ti8_d2_tl4at1_mha_fuser", "float32"),
    }
    expected = {}
    for mode, (name, policy) in cases.items():
        keras.config.set_dtype_policy(policy)
        model = small_model(name, classifier="map")
        waken(model)
        model.quantize(mode)
        inputs = random_inputs(model)
        expected[mode] = model.predict(inputs, verbose=0)  # compiled: one by one takes longer
        model.save(tmp_path / f"{mode}.keras")
        np.save(tmp_path / f"{mode}.inputs.npy", inputs)
    process = start("tests.helpers.loaded_outputs", str(tmp_path), backend=keras.backend.backend())
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    for mode, outputs in expected.items():
        assert np.ptp(outputs) > 0
        assert np.array_equal(np.load(tmp_path / f"{mode}.outputs.npy"), outputs), mode


@modes
@pytest.mark.parametrize("name", QUANTIZED)
def test_a_quantized_layer_comes_back(name: str, mode: str, tmp_path: Path) -> None:
    model, inputs = _one_layer(name), layer_inputs(name)
    before = to_numpy(model(inputs))
    model.quantize(mode)
    assert _modes(model) == {mode}
    assert not np.array_equal(to_numpy(model(inputs)), before)
    _check_round_trips(model, inputs, tmp_path)


@pytest.mark.parametrize("name", [name for name in QUANTIZED if "first" in name])
def test_the_first_tokens_are_near_those_in_floats(name: str) -> None:
    model, inputs = _one_layer(name), layer_inputs(name)
    before = to_numpy(model(inputs))
    model.quantize("int8")
    error = np.abs(to_numpy(model(inputs)) - before).max()
    assert error < 0.05 * np.ptp(before)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in QUANTIZED])
def test_a_layer_without_dense_layers_stays_float(name: str) -> None:
    model, inputs = _one_layer(name), layer_inputs(name)
    before, config = to_numpy(model(inputs)), model.get_config()
    model.quantize("int8")
    assert np.array_equal(to_numpy(model(inputs)), before)
    assert model.get_config() == config


@modes
@pytest.mark.parametrize("branch", quick_ones(BRANCHES, ("pooling, map head", "linear fuser")))
def test_a_quantized_model_comes_back(branch: str, mode: str, tmp_path: Path) -> None:
    model = branch_model(branch)
    waken(model)
    model.quantize(mode)
    assert _modes(model) == {mode}
    _check_round_trips(model, random_inputs(model), tmp_path)


@pytest.mark.parametrize(
    ("policy", "mode"),
    [("mixed_bfloat16", "int8"), ("mixed_bfloat16", "int4"), ("mixed_float16", "int4")],
)
def test_a_quantized_model_of_mixed_precision_comes_back(
    policy: str, mode: str, tmp_path: Path
) -> None:
    keras.config.set_dtype_policy(policy)
    model = small_model("vit_ti8_d2_tl4at1_fuser")
    waken(model)
    model.quantize(mode)
    inputs = random_inputs(model)
    expected = to_numpy(model(inputs))
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")  # the file's policies count, not the program's
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(to_numpy(loaded(inputs)), expected)


@pytest.mark.parametrize("arguments", [{"attention": "plain"}, {"remat": True}], ids=str)
def test_a_quantized_block_keeps_its_other_arguments(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    model = small_model("vit_ti8_d1", **arguments)
    waken(model)
    model.quantize("int8")
    _check_round_trips(model, random_inputs(model), tmp_path)


def test_a_partly_quantized_model_comes_back(tmp_path: Path) -> None:
    model = small_model("vit_ti8_d2_tl4at1_fuser")
    waken(model)
    model.quantize("int8", filters="query|mixing|hidden")
    assert _modes(model) == {"int8", None}
    _check_round_trips(model, random_inputs(model), tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        keras.quantizers.Int4QuantizationConfig(block_size=4),
        keras.quantizers.Int4QuantizationConfig(block_size=None),
        keras.quantizers.Int8QuantizationConfig(activation_quantizer=None),
    ],
    ids=["blocks of 4", "no blocks", "weights only"],
)
def test_the_quantizers_of_a_model_come_back(
    config: keras.quantizers.QuantizationConfig, tmp_path: Path
) -> None:
    model = small_model("vit_ti8_d2_tl4at1")
    waken(model)
    model.quantize(config=config)
    _check_round_trips(model, random_inputs(model), tmp_path)


def test_a_quantized_model_can_be_resized(tmp_path: Path) -> None:
    model = small_model("vit_ti8_d2_tl4at1")
    waken(model)
    model.quantize("int8")
    same = tk.resize_model(model, model.input_shape[1:3])
    inputs = random_inputs(model)
    assert np.array_equal(to_numpy(same(inputs)), to_numpy(model(inputs)))
    larger = tk.resize_model(model, 64)
    _check_round_trips(larger, random_inputs(larger), tmp_path)


def test_a_layer_inserted_into_another_model_comes_back_quantized(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 8))
    x = keras.layers.Dense(8)(inputs)
    plain = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    model = tk.insert_token_learner(plain, before="head", layer=tk.TokenLearnerV11(3, 5))
    waken(model)
    model.quantize("int4")
    _check_round_trips(model, random_inputs(model), tmp_path)


def test_a_float_model_has_the_config_that_it_always_had() -> None:
    assert "quantized_parts" not in str(small_model("vit_ti8_d2_tl4at1_fuser").get_config())

"""LoRA: what it adapts, what trains, and what a file of the model holds."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.processes import ROOT
from tests.helpers.round_trips import ON_JAX
from tests.helpers.round_trips import quick_ones
from tests.helpers.round_trips import waken
from tests.helpers.small_models import small_model

pytestmark = pytest.mark.every_backend

#: Every kind of layer that can be adapted, and the paths that their kernels can be under.
MODELS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "vit_ti16_d1_tl2at0_fuser": (
        {"remat": True},
        {"token_learner_0/token_masking", "token_fuser_0", "token_fuser_0/token_masking"},
    ),
    "vit_ti16_d1_tl2at0_v10": (
        {"classifier": "map", "token_learner_pooling": "mean"},
        {"token_learner_0", "map_head/attention", "map_head/mlp"},
    ),
    "vivit_ti16x2_d1_tl2at0_mha": ({}, {"token_learner_0/attention"}),
}
BLOCK = {"encoder_block_0/attention", "encoder_block_0/mlp"}


def _model(name: str) -> keras.Model:
    model = small_model(name, **MODELS[name][0])
    waken(model)
    return model


def _fit(model: keras.Model, inputs: np.ndarray) -> None:
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    # Adam also moves a kernel whose gradient is tiny, as behind saturated attention.
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=ON_JAX)
    model.fit(inputs, np.eye(5)[: len(inputs)], epochs=3, verbose=0)


def _is_lora(variable: keras.Variable) -> bool:
    return variable.name.startswith("lora_kernel")


@pytest.mark.parametrize("name", quick_ones(MODELS, {"vit_ti16_d1_tl2at0_fuser"}))
def test_only_lora_and_the_head_are_trained(name: str, tmp_path: Path) -> None:
    model = _model(name)
    inputs = random_inputs(model)
    before = to_numpy(model(inputs))
    adapted = tk.enable_lora(model, 2, alpha=4)
    assert {path.rpartition("/")[0] for path in adapted} == {"embedding"} | BLOCK | MODELS[name][1]
    np.testing.assert_allclose(to_numpy(model(inputs)), before, rtol=1e-4, atol=1e-5)
    trained = [v for v in model.trainable_variables if not _is_lora(v)]
    assert [v.path for v in trained] == ["head/kernel", "head/bias"]
    assert len(model.trainable_variables) == 2 * len(adapted) + 2

    frozen = {v.path: to_numpy(v) for v in model.non_trainable_variables if "seed" not in v.path}
    started = {v.path: to_numpy(v) for v in model.trainable_variables}
    _fit(model, inputs)
    for variable in model.variables:
        if variable.path in frozen:
            np.testing.assert_array_equal(to_numpy(variable), frozen[variable.path])
    for variable in model.trainable_variables:
        assert not np.array_equal(to_numpy(variable), started[variable.path]), variable.path
    after = to_numpy(model(inputs))
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(model.predict(inputs, verbose=0), after, rtol=1e-4, atol=1e-5)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(to_numpy(loaded(inputs)), after, rtol=1e-5, atol=1e-6)
    assert not any(map(_is_lora, loaded.variables))
    assert len(loaded.trainable_variables) == len(_model(name).trainable_variables)
    assert tk.count_macs(model) == tk.count_macs(loaded)


@pytest.mark.slow
def test_a_file_is_loaded_in_a_new_process(tmp_path: Path) -> None:
    model = _model("vit_ti16_d1_tl2at0_fuser")
    inputs = random_inputs(model)
    tk.enable_lora(model, 2)
    _fit(model, inputs)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "inputs.npy", inputs)
    code = (
        "import sys, keras, numpy as np, tokenlearner_keras\n"
        "model = keras.saving.load_model(sys.argv[1] + '/model.keras', compile=False)\n"
        "assert not [v.path for v in model.variables if 'lora' in v.path]\n"
        "outputs = model.predict(np.load(sys.argv[1] + '/inputs.npy'), verbose=0)\n"
        "np.save(sys.argv[1] + '/outputs.npy', outputs)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    outputs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(outputs, to_numpy(model(inputs)), rtol=1e-4, atol=1e-5)


def test_patterns_choose_what_is_adapted_and_what_is_trained_in_full() -> None:
    model = small_model("vit_ti16_d2_tl2at1")
    found = tk.enable_lora(
        model,
        4,
        ("*/query", "encoder_block_1/mlp/*", "token_learner_0/*"),
        trainable=("head", "token_learner_0", "encoder_norm"),
    )
    parts = ("0/attention/query", "1/attention/query", "1/mlp/hidden", "1/mlp/output")
    assert found == tuple(f"encoder_block_{part}" for part in parts)
    whole = {v.path.split("/")[0] for v in model.trainable_variables if not _is_lora(v)}
    assert whole == {"head", "token_learner_0", "encoder_norm"}
    assert model.get_layer("encoder_block_0").attention.query_layer.lora_rank == 4


def test_a_model_of_other_layers() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="norm")(inputs)
    x = tk.TokenLearnerV11(2, name="tokens")(keras.layers.Conv2D(8, 3, name="convolution")(x))
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    outputs = keras.layers.Dense(2, name="head")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    assert tk.enable_lora(model, 2) == (
        *(f"tokens/token_masking/{name}" for name in ("hidden", "output")),
        *(f"attention/{name}" for name in ("query", "key", "value", "attention_output")),
    )
    images = random(4, 8, 8, 3) + 3
    moving = to_numpy(model.get_layer("norm").moving_mean)
    model(images, training=True)
    np.testing.assert_array_equal(to_numpy(model.get_layer("norm").moving_mean), moving)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "`rank` must be an integer of at least 1"),
        ({"layers": ("*/qery",)}, r"`layers` must be .* Did you mean '\*/query'"),
        ({"layers": "head"}, "'head' matches none that can be adapted"),
        ({"trainable": ("haed",)}, "Did you mean 'head'"),
        ({"alpha": float("nan")}, "`alpha` must be a finite number"),
    ],
)
def test_wrong_arguments_leave_the_model_as_it_is(arguments: dict[str, Any], message: str) -> None:
    model = small_model("vit_ti16_d1_tl2at0")
    count = len(model.trainable_variables)
    with pytest.raises(ValueError, match=message):
        tk.enable_lora(model, **{"rank": 2, **arguments})
    assert len(model.trainable_variables) == len(model.weights) == count


def test_a_layer_is_adapted_once() -> None:
    model = small_model("vit_ti16_d1_tl2at0")
    tk.enable_lora(model, 2, ("*/attention/*",))
    with pytest.raises(ValueError, match="'encoder_block_0/attention/query' .* has LoRA already"):
        tk.enable_lora(model, 2)
    with pytest.raises(ValueError, match="Resize before tk.enable_lora, or save"):
        tk.resize_model(model, 64)


def test_what_cannot_be_adapted_stays_as_it_is() -> None:
    model = small_model("vit_ti16_d1_tl2at0")
    model.quantize("int8")
    count = len(model.trainable_variables)
    with pytest.raises(ValueError, match=r"adapts layers of floats.*Call enable_lora first"):
        tk.enable_lora(model, 2)
    assert len(model.trainable_variables) == count
    model = tk.create_model("x2plus1d_m", num_classes=5, image_size=32, num_frames=4)
    with pytest.raises(ValueError, match="'x2plus1d_m' has none"):
        tk.enable_lora(model, 2)


def test_only_models_are_taken() -> None:
    with pytest.raises(ValueError, match="takes a keras.Model"):
        tk.enable_lora(keras.layers.Dense(2), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes a built model"):
        tk.enable_lora(keras.Sequential([keras.layers.Dense(2)]), 2)

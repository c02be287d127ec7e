"""The convolutional video models: names, shapes, sizes, statistics, maps, files, training."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.round_trips import ON_JAX
from tests.helpers.round_trips import check_files
from tests.helpers.round_trips import fit_three_steps
from tests.helpers.round_trips import random
from tests.helpers.round_trips import to_numpy
from tests.helpers.round_trips import waken
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from tokenlearner_keras.models.x2plus1d_config import MODULES

SMALL: dict[str, Any] = {
    "image_size": (16, 24),
    "num_frames": 3,
    "stem_width": 4,
    "widths": (4, 6),
    "inner_widths": (6, 8),
    "depths": (1, 2),
    "module_blocks": 1,
    "num_tokens": 2,
    "num_heads": 2,
    "key_width": 4,
    "representation_size": 7,
    "num_classes": 5,
}
LEARNING = "x2plus1d_m_tokenlearner"
# One by `make test`, one of each kind by `make test-all`, the others by -m extra.
MARKS = {
    "conv2d_token_learner": (),
    "token_learner": pytest.mark.slow,
    "spatial_temporal": pytest.mark.slow,
    "conv2d_joint": pytest.mark.slow,
}
modules = pytest.mark.parametrize(
    "module", [pytest.param(name, marks=MARKS.get(name, pytest.mark.extra)) for name in MODULES]
)


def _create(name: str = "x2plus1d_m", **overrides: Any) -> keras.Model:
    return tk.create_model(name, **{**SMALL, **overrides})


def _videos(model: keras.Model, batch: int = 2, seed: int = 0) -> np.ndarray:
    return random(batch, *model.input_shape[1:], seed=seed)


def test_the_names_and_what_they_stand_for() -> None:
    assert tk.list_models("x2*") == ["x2plus1d_m", LEARNING]
    plain, learning = _create(), _create(LEARNING)
    assert plain.input_shape == (None, 3, 16, 24, 3) and plain.output_shape == (None, 5)
    kinds = [type(layer) for layer in learning.layers]
    assert kinds.count(tk.TokenLearner) == kinds.count(tk.TokenFuser) == 1
    assert tk.TokenLearner not in [type(layer) for layer in plain.layers]
    learner = learning.get_layer("token_learner_0")
    assert len(learner.convolutions) == 1 and learner.pooling == "mean"


def test_height_and_width_halve_five_times_and_time_never() -> None:
    model = _create(
        image_size=(40, 70), widths=(4,) * 4, inner_widths=(4,) * 4, depths=(1, 1, 1, 2)
    )
    assert model.get_layer("final_relu").output.shape == (None, 3, 2, 3, 4)
    config = tk.X2Plus1DConfig(image_size=(40, 70))
    assert config.grid_size == (2, 3)
    features = _create(classifier=None)
    assert features.output_shape == (None, 3, 2, 3, 8)


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_last_blocks_as_asked_have_the_module(count: int) -> None:
    model = _create(LEARNING, depths=(2, 4), module_blocks=count)
    learners = [layer for layer in model.layers if isinstance(layer, tk.TokenLearner)]
    assert [layer.name for layer in learners] == [f"token_learner_{i}" for i in range(count)]
    # What is left has its temporal convolutions: those of the stem and of the blocks.
    temporal = [layer.name for layer in model.layers if layer.name.endswith("conv1d")]
    assert len(temporal) == 1 + 6 - count
    assert f"stage_1_block_{3 - count}_conv1d" in temporal


@modules
@pytest.mark.slow
def test_every_module_builds_trains_and_is_saved(module: str, tmp_path: Path) -> None:
    model = _create(module=module)
    waken(model)
    x = _videos(model)
    assert tuple(model(x[:0], training=True).shape) == (0, 5)
    assert tk.count_macs(model) > 0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    fit_three_steps(model, loss, x, np.array([1, 3]), jit_compile=ON_JAX)
    # The file holds moving statistics, which three steps have changed.
    check_files(model, _create(module=module), x, tmp_path)
    assert type(model).__name__ == "X2Plus1D"


def test_a_new_block_is_the_identity_and_every_parameter_gets_a_gradient(gradients: Any) -> None:
    model = _create(LEARNING, depths=(1, 3))
    entry = keras.Model(model.input, model.get_layer("stage_1_block_1_relu").output)
    exit_ = keras.Model(model.input, model.get_layer("stage_1_block_2_relu").output)
    x = _videos(model)
    assert np.array_equal(to_numpy(entry(x)), to_numpy(exit_(x)))
    waken(model)
    variables = list(model.trainable_variables)
    _, found = gradients(model, [x], random(2, 5, seed=7), variables)
    for variable, gradient in zip(variables, found, strict=True):
        # Constants that a softmax over the keys, or the fuser's second norm, takes away.
        dead = variable.path.endswith(("key/bias", "mixing/bias"))
        assert np.all(np.isfinite(gradient)), variable.path
        assert dead or np.any(gradient != 0), variable.path


def test_training_normalises_by_the_batch_and_moves_the_statistics() -> None:
    model = _create(batch_norm_momentum=0.75)
    layer = model.get_layer("stem_norm")
    assert isinstance(layer, BatchNormalization) and layer.momentum == 0.75
    entering = keras.Model(model.input, model.get_layer("stem_conv1d").output)
    x = _videos(model)
    values = to_numpy(entering(x))
    leaving = keras.Model(model.input, layer.output)
    normalised = to_numpy(leaving(x, training=True))
    assert np.allclose(normalised.mean((0, 1, 2, 3)), 0, atol=1e-5)
    assert np.allclose(normalised.std((0, 1, 2, 3)), 1, atol=1e-3)
    mean = to_numpy(layer.moving_mean)
    assert np.allclose(mean, 0.25 * values.mean((0, 1, 2, 3)), atol=1e-5)
    # Inference uses them and leaves them.
    first = to_numpy(leaving(x, training=False))
    expected = (values - mean) / np.sqrt(to_numpy(layer.moving_variance) + layer.epsilon)
    assert np.allclose(first, expected, atol=1e-4)
    assert np.array_equal(to_numpy(layer.moving_mean), mean)


def test_attention_maps_of_every_token_learner_inside() -> None:
    model = _create(LEARNING, depths=(1, 4), module_blocks=2)
    waken(model)
    maps = tk.attention_maps(model, _videos(model))
    assert list(maps) == ["token_learner_0", "token_learner_1"]
    for each in maps.values():
        assert each.shape == (2, 3, 2, 2, 3)  # (B, T, S, H, W)
        assert np.all((each > 0) & (each < 1)) and np.ptp(each) > 0


def test_a_model_of_another_size_has_the_same_weights() -> None:
    model = _create(LEARNING)
    waken(model)
    larger = tk.resize_model(model, (32, 40), num_frames=5)
    assert type(larger) is type(model) and larger.input_shape == (None, 5, 32, 40, 3)
    expected = _create(LEARNING, image_size=(32, 40), num_frames=5)
    expected.set_weights(model.get_weights())
    x = _videos(larger)
    assert np.array_equal(to_numpy(larger(x)), to_numpy(expected(x)))
    with pytest.raises(ValueError, match=r"built for inputs.*resize_model\(model, \(32, 40\)"):
        model(x)
    mixing = _create(LEARNING, fuser_mixing="video")
    assert tk.resize_model(mixing, 32).input_shape == (None, 3, 32, 32, 3)
    with pytest.raises(ValueError, match="mixing='video'"):
        tk.resize_model(mixing, 32, num_frames=5)


@pytest.mark.parametrize("module", ["conv2d_token_learner", "conv2d_spatial_temporal"])
def test_mixed_precision_is_near_float32_with_statistics_in_float32(module: str) -> None:
    full = _create(module=module)
    waken(full)
    keras.config.set_dtype_policy("mixed_bfloat16")
    low = _create(module=module)
    low.set_weights(full.get_weights())
    x = _videos(full)
    logits = low(x)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert low.get_layer("final_conv").compute_dtype == "bfloat16"
    assert low.get_layer("stem_norm").moving_mean.dtype == "float32"
    expected = to_numpy(full(x))
    assert np.abs(to_numpy(logits) - expected).max() < 0.1 * np.abs(expected).max()
    trained = to_numpy(low(x, training=True))
    assert np.all(np.isfinite(trained))


def test_vector_attention_is_an_option() -> None:
    vector, heads = _create(LEARNING), _create(LEARNING, vector_attention=False)
    assert vector.get_layer("vector_transformer_0").attention.num_heads == 8
    assert heads.get_layer("vector_transformer_0").attention.num_heads == 2


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match="no field 'modul'. Did you mean 'module'"):
        _create(modul="joint")
    with pytest.raises(ValueError, match="Unknown model name 'x2plus1d_s'.*x2plus1d_m"):
        tk.create_model("x2plus1d_s")

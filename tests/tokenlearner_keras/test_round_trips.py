"""Every layer and every listed model: config, files, training, precision, gradients."""

import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import tokenlearner_keras as tk
from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.attention_pooling import AttentionPooling
from tokenlearner_keras.layers.class_token import ClassToken
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.fold_grid import FoldGrid
from tokenlearner_keras.layers.frame_sampling import FrameSampling
from tokenlearner_keras.layers.grid_pooling import GridPooling
from tokenlearner_keras.layers.mlp import MlpBlock
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.sequence_part import SequencePart
from tokenlearner_keras.layers.stochastic_depth import StochasticDepth
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.layers.token_pooling import TokenPooling
from tokenlearner_keras.layers.tubelet_inflation import InflatedKernel
from tokenlearner_keras.models.model_names import model_config

SEQUENCE, GRID, VIDEO = (16, 8), (4, 4, 8), (3, 4, 4, 8)
Shapes = tuple[tuple[int, ...], ...]
# How to make each layer, every argument off its default, and its inputs, batch apart.
LAYERS: dict[str, tuple[Callable[..., keras.layers.Layer], Shapes]] = {
    "v1.0": (lambda **k: tk.TokenLearner(3, **k), (VIDEO,)),
    "v1.0 mean": (lambda **k: tk.TokenLearner(3, "mean", (2, 8), **k), (SEQUENCE,)),
    "v1.1": (lambda **k: tk.TokenLearnerV11(3, 5, 0.1, **k), (GRID,)),
    "mha": (lambda **k: TokenLearnerMHA(3, 2, 0.1, **k), (VIDEO,)),
    "fuser": (lambda **k: tk.TokenFuser(5, dropout=0.1, **k), ((3, 8), GRID)),
    "fuser linear": (lambda **k: tk.TokenFuser(None, **k), ((3, 8), SEQUENCE)),
    "fuser plain": (lambda **k: tk.TokenFuser(5, False, **k), ((3, 3, 8), VIDEO)),
    "fuser video": (lambda **k: tk.TokenFuser(5, mixing="video", **k), ((3, 3, 8), VIDEO)),
    "patches": (lambda **k: PatchEmbedding(8, (2, 3), **k), ((5, 6, 3),)),
    "patches of frames": (lambda **k: PatchEmbedding(8, (2, 3), **k), ((2, 5, 6, 3),)),
    "tubelets": (
        lambda **k: PatchEmbedding(8, (2, 3), 2, "central_frame", **k),
        ((4, 5, 6, 3),),
    ),
    "positions": (lambda **k: PositionEmbedding((3, 5), 1, **k), ((16, 8),)),
    "class token": (lambda **k: ClassToken(**k), (SEQUENCE,)),
    "encoder block": (lambda **k: EncoderBlock(2, 12, 0.1, 0.2, 0.3, **k), (SEQUENCE,)),
    "self-attention": (lambda **k: MultiHeadAttention(2, 0.1, **k), (SEQUENCE,)),
    "attention": (lambda **k: MultiHeadAttention(2, **k), ((3, 8), SEQUENCE)),
    "mlp": (lambda **k: MlpBlock(12, 5, 0.1, **k), (GRID,)),
    "attention pooling": (lambda **k: AttentionPooling(2, 12, **k), (SEQUENCE,)),
    **{
        mode: (lambda mode=mode, **k: TokenPooling(mode, **k), (SEQUENCE,))
        for mode in ("gap", "gmp", "gsp", "token")
    },
    "grid pooling": (lambda **k: GridPooling((2, 3), **k), (VIDEO,)),
    "frame sampling": (lambda **k: FrameSampling(2, **k), (VIDEO,)),
    "fold": (lambda **k: FoldGrid((2, 8), **k), (SEQUENCE,)),
    "part": (lambda **k: SequencePart(1, 5, **k), (SEQUENCE,)),
    "stochastic depth": (lambda **k: StochasticDepth(0.2, 7, **k), (GRID,)),
}
INITIALIZERS = {"inflated kernel": InflatedKernel("average", seed=4)}

SMALL: dict[str, Any] = {
    "image_size": (40, 36),
    "patch_size": (4, 4),
    "width": 16,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 5,
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
}
needs_xla = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="jit_compile is torch.compile there, which needs a C++ compiler",
)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def _waken(model: Any) -> None:
    """Moves all weights off their initial values, of which many are zero."""
    for index, variable in enumerate(model.trainable_variables):
        variable.assign_add(0.1 * _random(*variable.shape, seed=index))


def _dead(layer: Any, variable: Any) -> bool:
    """Whether the true gradient of a variable of a layer (or a model of such) is zero."""
    path = variable.path
    names = [each.name for each in getattr(layer, "layers", [])]
    fusers = [name for name in names if name.startswith("token_fuser")]
    if "class_token" in names and fusers and path.startswith(f"{fusers[-1]}/"):
        return True  # Only the class token is read after the last block; it bypasses the fuser.
    if path.endswith("mixing/bias"):  # A constant on all channels, before a LayerNorm.
        return getattr(layer, "use_normalization", True)
    if path.endswith("token_masking/output/bias"):  # A constant on all positions, but
        return "fuser" not in path  # the fuser's mask has no softmax.
    return path.endswith("key/bias")  # A constant on all keys, before a softmax.


def _check_gradients(layer: Any, variables: list[Any], found: list[np.ndarray]) -> None:
    """Checks that exactly the dead parameters have no gradient."""
    largest = max(np.abs(gradient).max() for gradient in found)
    for variable, gradient in zip(variables, found, strict=True):
        size = np.abs(gradient).max() / largest
        if _dead(layer, variable):
            assert size < 1e-6, f"{variable.path}: {size:.1e}"
        else:
            assert size > 1e-4, f"{variable.path}: {size:.1e}"


def _check_files(model: keras.Model, copy: keras.Model, inputs: Any, folder: Path) -> None:
    """Checks that both kinds of files give the same outputs."""
    expected = _numpy(model(inputs))
    assert np.all(np.isfinite(expected)) and np.ptp(expected) > 0
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    assert type(loaded) is type(model)
    assert np.array_equal(_numpy(loaded(inputs)), expected)
    # By way of JSON, which makes lists of tuples.
    configs = [json.loads(json.dumps(each.get_config())) for each in (loaded, model)]
    assert configs[0] == configs[1]
    model.save_weights(folder / "model.weights.h5")
    copy.load_weights(folder / "model.weights.h5")
    assert np.array_equal(_numpy(copy(inputs)), expected)


def _fit(model: keras.Model, loss: Any, inputs: Any, labels: Any, jit_compile: bool) -> None:
    """Trains for three steps and checks that every parameter took part."""
    before = [_numpy(variable) for variable in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit_compile)
    history = model.fit(inputs, labels, batch_size=2, epochs=3, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    for old, variable in zip(before, model.trainable_variables, strict=True):
        new = _numpy(variable)
        assert np.all(np.isfinite(new)), variable.path
        assert not np.array_equal(old, new) or _dead(model, variable), variable.path


# Layers.


def _layer_inputs(name: str) -> list[np.ndarray]:
    return [_random(2, *shape, seed=i) for i, shape in enumerate(LAYERS[name][1])]


def _layer_model(name: str) -> keras.Model:
    """A model of one layer, with a Dense after it so that there is always a weight."""
    make, shapes = LAYERS[name]
    inputs = [keras.Input(shape) for shape in shapes]
    x = keras.layers.Flatten()(make()(*inputs))
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def test_no_layer_is_missing() -> None:
    for module in pkgutil.walk_packages(tk.__path__, "tokenlearner_keras."):
        importlib.import_module(module.name)
    registered = {
        kind
        for name, kind in keras.saving.get_custom_objects().items()
        if name.startswith(f"{SERIALIZATION_PACKAGE}>") and not issubclass(kind, keras.Model)
    }
    tested = {type(make()) for make, _ in LAYERS.values()}
    assert registered == tested | {type(each) for each in INITIALIZERS.values()}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_comes_back_from_its_config_and_files(name: str, tmp_path: Path) -> None:
    layer = LAYERS[name][0](name="named")
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config
    written = json.dumps(keras.saving.serialize_keras_object(layer))
    again = keras.saving.deserialize_keras_object(json.loads(written), safe_mode=True)
    assert type(again) is type(layer) and again.get_config() == config
    registered = keras.saving.get_registered_name(type(layer))
    assert registered == f"tokenlearner_keras>{type(layer).__name__}"
    model = _layer_model(name)
    _waken(model)
    _check_files(model, _layer_model(name), _layer_inputs(name), tmp_path)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_an_initializer_comes_back_from_its_config(name: str) -> None:
    initializer = INITIALIZERS[name]
    written = json.dumps(keras.saving.serialize_keras_object(initializer))
    again = keras.saving.deserialize_keras_object(json.loads(written), safe_mode=True)
    assert type(again) is type(initializer)
    assert again.get_config() == initializer.get_config()
    assert np.array_equal(_numpy(again((2, 3, 3, 3, 4))), _numpy(initializer((2, 3, 3, 3, 4))))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_knows_its_output_shape_without_a_call(name: str) -> None:
    """Otherwise Keras runs the layer to find out, and a large model is slow to build."""
    layer = LAYERS[name][0]()
    shapes = [(2, *shape) for shape in LAYERS[name][1]]
    assert type(layer).compute_output_shape is not keras.layers.Layer.compute_output_shape
    shape = layer.compute_output_shape(*shapes)
    assert tuple(layer(*_layer_inputs(name)).shape) == tuple(shape)
    unknown = layer.compute_output_shape(*[(None, *shape[1:]) for shape in shapes])
    assert tuple(unknown) == (None, *shape[1:])


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=[pytest.mark.slow, needs_xla])]
)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_trains(name: str, jit_compile: bool) -> None:
    inputs = _layer_inputs(name)
    _fit(_layer_model(name), "mse", inputs, _random(2, 4, seed=9), jit_compile)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_bfloat16_is_near_float32(name: str) -> None:
    make, _ = LAYERS[name]
    full, low, inputs = make(), make(dtype="mixed_bfloat16"), _layer_inputs(name)
    for layer in (full, low):
        layer(*inputs)
        _waken(layer)
    low.set_weights(full.get_weights())
    output = low(*inputs)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert all(weight.dtype == "float32" for weight in low.weights)
    expected = _numpy(full(*inputs))
    assert np.abs(_numpy(output) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_reach_a_layers_inputs_and_parameters(name: str, gradients: Any) -> None:
    layer, inputs = LAYERS[name][0](), _layer_inputs(name)
    shape = layer(*inputs).shape
    _waken(layer)
    by_input, found = gradients(
        layer, inputs, _random(*shape, seed=5), list(layer.trainable_variables)
    )
    assert all(np.all(np.isfinite(g)) and np.any(g != 0) for g in by_input)
    if found:
        _check_gradients(layer, list(layer.trainable_variables), found)


# Models.


def _create(name: str, **overrides: Any) -> keras.Model:
    if name.startswith("vivit"):
        overrides.setdefault("num_frames", 4)
    return tk.create_model(name, **{**SMALL, **overrides})


def _branch(branch: str) -> keras.Model:
    name, overrides = BRANCHES[branch]
    return _create(name, **overrides)


def _images(model: keras.Model, batch: int = 2) -> np.ndarray:
    return _random(batch, *model.input_shape[1:])


@pytest.mark.parametrize("name", tk.list_models())
@pytest.mark.filterwarnings("ignore:image_size")
def test_the_configuration_of_a_listed_model_comes_back(name: str) -> None:
    for overrides in ({}, SMALL):
        config = model_config(name, **overrides)
        written = json.dumps(config.to_dict())
        assert type(config).from_dict(json.loads(written)) == config


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_model_comes_back_from_its_files(branch: str, tmp_path: Path) -> None:
    model = _branch(branch)
    _waken(model)
    _check_files(model, _branch(branch), _images(model), tmp_path)


QUICK = ("vit_ti16", "vit_b16_tl8at3", "vit_b16_tl8at6_v10_fuser_linear")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in tk.list_models()
    ],
)
def test_a_listed_model_comes_back_from_its_files(name: str, tmp_path: Path) -> None:
    """At the name's own depth, narrow and with small patches."""
    model = _create(name)
    _waken(model)
    _check_files(model, _create(name), _images(model), tmp_path)


def _loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    "branch", [pytest.param(b, marks=() if b == "v1.1" else pytest.mark.slow) for b in BRANCHES]
)
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=needs_xla)])
def test_a_model_trains(branch: str, jit_compile: bool) -> None:
    model = _branch(branch)
    _fit(model, _loss(), _images(model), np.array([1, 3]), jit_compile)


def _distinct() -> dict[Any, str]:
    """A listed name for every configuration that differs once small, shortened after
    the last block that is special: two blocks more than that show all there is."""
    names: dict[Any, str] = {}
    for name in tk.list_models():
        config = model_config(name, **SMALL)
        last = max([config.token_learner_block or 0, *(block for block, _ in config.pooling)])
        small = model_config(name, **{**SMALL, "depth": min(config.depth, last + 2)})
        names.setdefault(small, name)
    return names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depth"), [(name, config.depth) for config, name in _distinct().items()]
)
def test_a_listed_model_trains(name: str, depth: int) -> None:
    model = _create(name, depth=depth)
    _fit(model, _loss(), _images(model), np.array([1, 3]), False)


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_model_in_bfloat16_is_near_float32(branch: str) -> None:
    full = _branch(branch)
    _waken(full)
    keras.config.set_dtype_policy("mixed_bfloat16")
    low = _branch(branch)
    low.set_weights(full.get_weights())
    logits = low(_images(full))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert low.get_layer("encoder_block_0").compute_dtype == "bfloat16"
    expected = _numpy(full(_images(full)))
    assert np.abs(_numpy(logits) - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("branch", BRANCHES)
def test_gradients_reach_every_parameter_of_a_new_model(branch: str, gradients: Any) -> None:
    """By the second step, by the third with a fuser: head and mixing start at zero."""
    model = _branch(branch)
    x, cotangent = _images(model), _random(2, 5, seed=7)
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
        assert size < 1e-6 if _dead(model, variable) else size > 0, f"{variable.path}: {size:.1e}"


@pytest.mark.slow
def test_a_full_size_model_comes_back_from_its_file(tmp_path: Path) -> None:
    model = tk.create_model("vit_b16_tl8at6", image_size=224)
    _waken(model)
    x = _images(model, batch=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(_numpy(loaded(x)), _numpy(model(x)))
    assert loaded.count_params() == model.count_params() == 86_617_392

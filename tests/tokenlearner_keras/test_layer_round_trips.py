"""Every layer: config, files, training, precision, gradients."""

import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import check_files
from tests.helpers.round_trips import check_gradients
from tests.helpers.round_trips import fit_three_steps
from tests.helpers.round_trips import waken
from tests.helpers.round_trips import without_and_with_jit
from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.encoder_block import StochasticDepth
from tokenlearner_keras.layers.mlp import MlpBlock
from tokenlearner_keras.layers.patch_embedding import InflatedKernel
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.pooling import AttentionPooling
from tokenlearner_keras.layers.pooling import GridPooling
from tokenlearner_keras.layers.pooling import TokenPooling
from tokenlearner_keras.layers.position_embedding import ClassToken
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.reshaping import FoldGrid
from tokenlearner_keras.layers.reshaping import FrameSampling
from tokenlearner_keras.layers.reshaping import SequencePart
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.layers.video_attention import GridAttention
from tokenlearner_keras.layers.video_attention import VectorTransformer

SEQUENCE, GRID, VIDEO = (16, 8), (4, 4, 8), (3, 4, 4, 8)
Shapes = tuple[tuple[int, ...], ...]
# How to make each layer, every argument off its default, and its inputs, batch apart.
LAYERS: dict[str, tuple[Callable[..., keras.layers.Layer], Shapes]] = {
    "v1.0": (lambda **k: tk.TokenLearner(3, **k), (VIDEO,)),
    "v1.0 mean": (lambda **k: tk.TokenLearner(3, "mean", (2, 8), **k), (SEQUENCE,)),
    "v1.0, one convolution": (
        lambda **k: tk.TokenLearner(3, num_convolutions=1, **k),
        (VIDEO,),
    ),
    "v1.1": (lambda **k: tk.TokenLearnerV11(3, 5, 0.1, **k), (GRID,)),
    "mha": (lambda **k: TokenLearnerMHA(3, 2, 0.1, **k), (VIDEO,)),
    "patch merger": (lambda **k: tk.PatchMerger(3, **k), (GRID,)),
    "v1.0 of clips": (lambda **k: tk.TokenLearner(3, per_frame=False, **k), (VIDEO,)),
    "v1.1 of clips": (lambda **k: tk.TokenLearnerV11(3, 5, per_frame=False, **k), (VIDEO,)),
    "mha of clips": (lambda **k: TokenLearnerMHA(3, 2, per_frame=False, **k), (VIDEO,)),
    "patch merger of clips": (lambda **k: tk.PatchMerger(3, False, **k), (VIDEO,)),
    "first of v1.0": (lambda **k: tk.TokenLearner(4, active_tokens=3, **k), (VIDEO,)),
    "first of v1.0, one convolution": (
        lambda **k: tk.TokenLearner(4, num_convolutions=1, active_tokens=3, **k),
        (GRID,),
    ),
    "first of v1.1": (lambda **k: tk.TokenLearnerV11(4, 5, active_tokens=3, **k), (GRID,)),
    "first of mha": (lambda **k: TokenLearnerMHA(4, 2, active_tokens=3, **k), (VIDEO,)),
    "first of patch merger": (lambda **k: tk.PatchMerger(4, active_tokens=3, **k), (GRID,)),
    "merging": (lambda **k: tk.TokenMerging(3, 1, **k), (SEQUENCE,)),
    "merging frames": (lambda **k: tk.TokenMerging(2, **k), ((3, 7, 8),)),
    "fuser": (lambda **k: tk.TokenFuser(5, dropout=0.1, **k), ((3, 8), GRID)),
    "fuser linear": (lambda **k: tk.TokenFuser(None, **k), ((3, 8), SEQUENCE)),
    "fuser of clips": (lambda **k: tk.TokenFuser(5, **k), ((3, 8), VIDEO)),
    "fuser plain": (lambda **k: tk.TokenFuser(5, False, **k), ((3, 3, 8), VIDEO)),
    "fuser video": (lambda **k: tk.TokenFuser(5, mixing="video", **k), ((3, 3, 8), VIDEO)),
    "fuser of the first": (lambda **k: tk.TokenFuser(5, num_tokens=4, **k), ((3, 8), GRID)),
    "linear fuser of the first": (
        lambda **k: tk.TokenFuser(None, mixing="video", num_tokens=4, **k),
        ((3, 3, 8), VIDEO),
    ),
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
    "batch norm": (lambda **k: BatchNormalization(0.8, 1e-4, **k), (VIDEO,)),
    **{
        axes: (lambda axes=axes, **k: GridAttention(axes, 2, 6, **k), (VIDEO,))
        for axes in ("space_time", "space", "time")
    },
    "vector transformer": (lambda **k: VectorTransformer(**k), (SEQUENCE,)),
    "transformer of heads": (lambda **k: VectorTransformer(2, **k), (SEQUENCE,)),
    "fold": (lambda **k: FoldGrid((2, 8), **k), (SEQUENCE,)),
    "part": (lambda **k: SequencePart(1, 5, **k), (SEQUENCE,)),
    "stochastic depth": (lambda **k: StochasticDepth(0.2, 7, **k), (GRID,)),
}
INITIALIZERS = {"inflated kernel": InflatedKernel("average", seed=4)}


def layer_inputs(name: str) -> list[np.ndarray]:
    return [random(2, *shape, seed=i) for i, shape in enumerate(LAYERS[name][1])]


def _layer_model(name: str) -> keras.Model:
    """A model of one layer, with a Dense after it so that there is always a weight."""
    make, shapes = LAYERS[name]
    inputs = [keras.Input(shape) for shape in shapes]
    x = keras.layers.Flatten()(make()(*inputs))
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def test_no_layer_is_missing() -> None:
    for module in pkgutil.walk_packages(tk.__path__, "tokenlearner_keras."):
        if module.name != "tokenlearner_keras.keras2_bridge":  # which refuses Keras 3
            importlib.import_module(module.name)
    registered = {
        kind
        for name, kind in keras.saving.get_custom_objects().items()
        if name.startswith(f"{SERIALIZATION_PACKAGE}>") and not issubclass(kind, keras.Model)
    }
    tested = {type(make()) for make, _ in LAYERS.values()}
    assert registered == tested | {type(each) for each in INITIALIZERS.values()}


@pytest.mark.every_backend
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
    waken(model)
    check_files(model, _layer_model(name), layer_inputs(name), tmp_path)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_an_initializer_comes_back_from_its_config(name: str) -> None:
    initializer = INITIALIZERS[name]
    written = json.dumps(keras.saving.serialize_keras_object(initializer))
    again = keras.saving.deserialize_keras_object(json.loads(written), safe_mode=True)
    assert type(again) is type(initializer)
    assert again.get_config() == initializer.get_config()
    assert np.array_equal(to_numpy(again((2, 3, 3, 3, 4))), to_numpy(initializer((2, 3, 3, 3, 4))))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_knows_its_output_shape_without_a_call(name: str) -> None:
    """Otherwise Keras runs the layer to find out, and a large model is slow to build."""
    layer = LAYERS[name][0]()
    shapes = [(2, *shape) for shape in LAYERS[name][1]]
    assert type(layer).compute_output_shape is not keras.layers.Layer.compute_output_shape
    shape = layer.compute_output_shape(*shapes)
    assert tuple(layer(*layer_inputs(name)).shape) == tuple(shape)
    unknown = layer.compute_output_shape(*[(None, *shape[1:]) for shape in shapes])
    assert tuple(unknown) == (None, *shape[1:])


@without_and_with_jit
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.slow
def test_a_layer_trains(name: str, jit_compile: bool) -> None:
    inputs = layer_inputs(name)
    fit_three_steps(_layer_model(name), "mse", inputs, random(2, 4, seed=9), jit_compile)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_bfloat16_is_near_float32(name: str) -> None:
    make, _ = LAYERS[name]
    full, low, inputs = make(), make(dtype="mixed_bfloat16"), layer_inputs(name)
    for layer in (full, low):
        layer(*inputs)
        waken(layer)
    low.set_weights(full.get_weights())
    output = low(*inputs)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert all(weight.dtype == "float32" for weight in low.weights)
    expected = to_numpy(full(*inputs))
    assert np.abs(to_numpy(output) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.every_backend
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_reach_a_layers_inputs_and_parameters(name: str, gradients: Any) -> None:
    layer, inputs = LAYERS[name][0](), layer_inputs(name)
    shape = layer(*inputs).shape
    waken(layer)
    by_input, found = gradients(
        layer, inputs, random(*shape, seed=5), list(layer.trainable_variables)
    )
    assert all(np.all(np.isfinite(g)) and np.any(g != 0) for g in by_input)
    if found:
        check_gradients(layer, list(layer.trainable_variables), found)

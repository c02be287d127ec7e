"""Each public layer in the formats of other runtimes, with unknown sizes and any batch."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy

Run = Callable[[np.ndarray], np.ndarray]
CHANNELS = 16
GRIDS = {3: (12,), 4: (3, 4), 5: (2, 3, 4)}


def _fused(x: Any) -> Any:
    tokens = tk.TokenLearnerV11(3)(x)
    fuser = tk.TokenFuser()
    fuser.build(tokens.shape, x.shape)
    fuser.mixing_layer.kernel.assign(random(3, 3))  # at first it is zero, as the output is
    return fuser(tokens, x)


def _merged(x: Any) -> Any:
    x = keras.layers.Reshape((-1, CHANNELS))(x)
    return tk.TokenMerging(3, 1)(x)


LAYERS = {
    "v1.0": lambda x: tk.TokenLearner(3, grid_size=(3, 4))(x),
    "v1.1": lambda x: tk.TokenLearnerV11(3)(x),
    "mha": lambda x: tk.TokenLearnerMHA(3, num_heads=8)(x),
    "patch merger": lambda x: tk.PatchMerger(3)(x),
    "v1.1 of clips": lambda x: tk.TokenLearnerV11(3, per_frame=False)(x),
    "fuser": _fused,
}


def _onnx(model: keras.Model, folder: Path) -> Run:
    runtime = pytest.importorskip("onnxruntime")
    tf2onnx = pytest.importorskip("tf2onnx")
    call = _function(model)
    path = str(folder / "model.onnx")
    tf2onnx.convert.from_function(
        call, input_signature=call.input_signature, opset=17, output_path=path
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def _litert(model: keras.Model, folder: Path) -> Run:
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    import tensorflow as tf

    _saved_model(model, folder)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    runner = interpreters.Interpreter(model_content=converter.convert()).get_signature_runner()
    return lambda x: runner(x=x)["y"]


def _saved_model(model: keras.Model, folder: Path) -> Run:
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    call = _function(model).get_concrete_function()
    tf.saved_model.save(module, str(folder / "saved"), signatures=call)
    loaded = tf.saved_model.load(str(folder / "saved"))
    return lambda x: loaded.signatures["serving_default"](x=tf.constant(x))["y"].numpy()


def _function(model: keras.Model) -> Any:
    import tensorflow as tf

    spec = tf.TensorSpec(model.input_shape, name="x")
    return tf.function(lambda x: {"y": model(x)}, input_signature=[spec])


def _stablehlo(model: keras.Model, folder: Path) -> Run:
    import jax
    from jax import export

    names = [f"d{i}" if size is None else size for i, size in enumerate(model.input_shape)]
    # A flat v1.0 finds its grid by a reshape that needs this.
    equal = ("d1 == 12",) if len(names) == 3 and "d1" in names else ()
    shape = export.symbolic_shape(", ".join(map(str, names)), constraints=equal)
    spec = jax.ShapeDtypeStruct(shape, "float32")
    program = export.export(jax.jit(lambda x: model(x)))(spec).serialize()
    return lambda x: np.asarray(export.deserialize(program).call(x))


FORMATS = {
    "tensorflow": {"onnx": _onnx, "litert": _litert, "saved_model": _saved_model},
    "jax": {"stablehlo": _stablehlo},
}.get(keras.backend.backend(), {})


def _check(make: Callable[..., Any], format: str, rank: int, known: bool, folder: Path) -> None:
    grid = GRIDS[rank]
    inputs = keras.Input((*(grid if known else (None,) * len(grid)), CHANNELS))
    model = keras.Model(inputs, make(inputs))
    run = FORMATS[format](model, folder)
    for batch in (5, 1):
        x = random(batch, *grid, CHANNELS)
        expected = to_numpy(model(x))
        assert np.any(expected)
        np.testing.assert_allclose(run(x), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.every_backend
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_runs_with_unknown_sizes(layer: str, format: str, tmp_path: Path) -> None:
    _check(LAYERS[layer], format, 4, False, tmp_path)


@pytest.mark.every_backend
@pytest.mark.parametrize("format", FORMATS)
def test_merging_runs_with_known_sizes(format: str, tmp_path: Path) -> None:
    _check(_merged, format, 4, True, tmp_path)


@pytest.mark.every_backend
@pytest.mark.parametrize("format", FORMATS)
def test_convolutions_of_clips_run_with_unknown_sizes(format: str, tmp_path: Path) -> None:
    _check(lambda x: tk.TokenLearner(3, per_frame=False)(x), format, 5, False, tmp_path)


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("rank", "known"), list(itertools.product(GRIDS, (True, False))))
def test_every_rank_and_size(
    layer: str, format: str, rank: int, known: bool, tmp_path: Path
) -> None:
    _check(LAYERS[layer], format, rank, known, tmp_path)

"""Writes the formats: SavedModel, ONNX, LiteRT and StableHLO, with the packages that each needs."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.data.preprocessing.normalization import channel_statistics
from trainers.exporting.output import LITERT_NAME
from trainers.exporting.output import Metadata
from trainers.exporting.output import to_json
from trainers.exporting.output import to_strings
from trainers.exporting.served_model import ServedModel
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import ExportError
from trainers.utils.errors import one_line

#: format -> modules that write it, or read it in the check.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "saved_model": (),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "litert": ("ai_edge_litert",),
    "stablehlo": ("jax",),
}
FORMATS = tuple(REQUIREMENTS)

#: Takes uint8 images of any size; a server calls it by default.
SERVING = "serving_default"
#: Takes normalised float32 images of the model's size.
NORMALIZED = "normalized"
_INPUT = "images"
_OUTPUT = "logits"

# The oldest ONNX opset with all operations of these models, for the sake of old runtimes.
_OPSET = 17
_ROOT = Path(__file__).resolve().parents[2]

Function = Callable[[tf.Tensor], tf.Tensor]


def missing_modules(format: str) -> list[str]:
    """Returns the modules that a format needs and that are not installed."""
    return [name for name in REQUIREMENTS[format] if importlib.util.find_spec(name) is None]


def check_requirements(format: str) -> None:
    """Checks that the packages of a format are installed.

    Raises:
        ConfigurationError: If one is missing.
    """
    missing = missing_modules(format)
    if missing:
        raise ConfigurationError(
            f"--format={format} needs {', '.join(REQUIREMENTS[format])}. Not installed: "
            f"{', '.join(missing)}. Install them with: pip install '.[export]' in a clone"
        )


def write_saved_model(served: ServedModel, path: str) -> None:
    """Writes a SavedModel with both signatures into a new folder."""
    *sizes, channels = served.input_shape
    any_size = (None, *(None for _ in sizes), channels)  # of any batch, sides and length
    functions = {
        SERVING: (served.logits_of_any_size, tf.TensorSpec(any_size, tf.uint8)),
        NORMALIZED: (served.logits, tf.TensorSpec((None, *served.input_shape), tf.float32)),
    }
    _save_functions(served, functions, path)


def _save_functions(
    served: ServedModel, functions: Mapping[str, tuple[Function, tf.TensorSpec]], path: str
) -> None:
    """Writes functions of a model as the signatures of a SavedModel, with the weights alone."""
    module = tf.Module()
    # Not the model itself: TensorFlow would store the structure of its Python objects.
    module.weights = [variable.value for variable in served.model.variables]
    signatures = {
        name: _named_function(*function).get_concrete_function()
        for name, function in functions.items()
    }
    tf.saved_model.save(module, path, signatures=signatures)


def _named_function(function: Function, spec: tf.TensorSpec) -> Any:
    """Returns a `tf.function` from `images`, of the given specification, to `{"logits": ...}`."""

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {_OUTPUT: function(images)}

    return tf.function(answer, input_signature=[_named_spec(spec)])


def _named_spec(spec: tf.TensorSpec) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype, name=_INPUT)


def write_onnx(
    served: ServedModel, function: Function, spec: tf.TensorSpec, path: str, metadata: Metadata
) -> None:
    """Writes one function of a model as an ONNX file, with the metadata as `metadata_props`.

    The batch of `spec`, the function's input, may be unknown.

    Raises:
        ExportError: If an operation has no counterpart.
    """
    import onnx
    import tf2onnx

    try:
        model, _ = tf2onnx.convert.from_function(
            _named_function(function, spec),
            input_signature=[_named_spec(spec)],
            opset=_OPSET,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    # The converter raises errors of several kinds, all with long texts.
    except Exception as error:
        raise _not_convertible(served, "ONNX", error) from error
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, to_strings(metadata))
    Path(path).write_bytes(model.SerializeToString())


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Writes Erfc, of the exact GELU, which ONNX lacks, as 1 - Erf."""
    del arguments
    erf = graph.make_node("Erf", node.input)
    one = graph.make_const(f"{name}/one", np.array(1.0, np.float32))
    (output,) = node.output
    graph.remove_node(name)
    graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=[output])


def write_litert(
    served: ServedModel, function: Function, spec: tf.TensorSpec, path: str, metadata: Metadata
) -> None:
    """Writes one function of a model as the signature `serving_default` of a LiteRT file.

    The batch of `spec`, the function's input, may be unknown. The metadata is JSON under the name
    `LITERT_NAME`.

    Raises:
        ExportError: If an operation has no counterpart.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved_model = str(Path(folder) / "saved_model")
        _save_functions(served, {SERVING: (function, spec)}, saved_model)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
        # Not SELECT_TF_OPS: the runtime alone, without TensorFlow, has none of these.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            content = converter.convert()
        # The converter raises errors of several kinds, all with long texts.
        except Exception as error:
            raise _not_convertible(served, "LiteRT", error) from error
    Path(path).write_bytes(_with_metadata(content, to_json(metadata)))


def _with_metadata(content: bytes, metadata: bytes) -> bytes:
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = LITERT_NAME, len(model.buffers)
    buffer.data = np.frombuffer(metadata, np.uint8)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def write_stablehlo(served: ServedModel, spec: tf.TensorSpec, path: str) -> None:
    """Writes the model as a program of `jax.export`, for all platforms that JAX knows.

    TensorFlow cannot leave the batch open in StableHLO, and Keras runs on one backend in a process,
    so another process loads the model on JAX. The program takes normalised float32, or uint8 that
    it normalises.
    """
    statistics = None
    if spec.dtype == tf.uint8:
        statistics = channel_statistics(served.normalization, spec.shape[-1])
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model.keras")
        served.model.save(model)
        arguments = [model, path, json.dumps(spec.shape[1:].as_list()), json.dumps(statistics)]
        environment = {
            "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
        }
        failure = f"{served.model.name} cannot be converted to StableHLO"
        run_python(["-m", "trainers.exporting.stablehlo_process", *arguments], environment, failure)


def _not_convertible(served: ServedModel, format: str, error: Exception) -> ExportError:
    reason = one_line(error)[:300]
    return ExportError(f"{served.model.name} cannot be converted to {format}: {reason}")


def run_python(
    arguments: list[str], environment: dict[str, str], failure: str, folder: str | None = None
) -> None:
    """Runs another Python, in `folder` if given.

    Raises:
        ExportError: If it fails; the message is `failure` and the last line of its stderr.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ExportError(f"{failure}: {reason}")

"""Writes ONNX and LiteRT files, and knows the packages that each format needs."""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.exporting.metadata import LITERT_NAME
from trainers.exporting.metadata import Metadata
from trainers.exporting.metadata import to_json
from trainers.exporting.metadata import to_strings
from trainers.exporting.saved_model import SERVING
from trainers.exporting.saved_model import Function
from trainers.exporting.saved_model import named_function
from trainers.exporting.saved_model import named_spec
from trainers.exporting.saved_model import save_functions
from trainers.exporting.served_model import ServedModel
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import ExportError
from trainers.utils.errors import one_line

# The oldest with all operations of these models, for the sake of old runtimes.
_OPSET = 17


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
            named_function(function, spec),
            input_signature=[named_spec(spec)],
            opset=_OPSET,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    # The converter raises errors of several kinds, all with long texts.
    except Exception as error:
        reason = one_line(error)[:300]
        raise ExportError(f"{served.model.name} cannot be converted to ONNX: {reason}") from error
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
        save_functions(served, {SERVING: (function, spec)}, saved_model)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
        # Not SELECT_TF_OPS: the runtime alone, without TensorFlow, has none of these.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            content = converter.convert()
        # The converter raises errors of several kinds, all with long texts.
        except Exception as error:
            reason = one_line(error)[:300]
            raise ExportError(
                f"{served.model.name} cannot be converted to LiteRT: {reason}"
            ) from error
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


#: format -> modules that write it, or read it in the check.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "saved_model": (),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "litert": ("ai_edge_litert",),
    "stablehlo": ("jax",),
}

FORMATS = tuple(REQUIREMENTS)


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

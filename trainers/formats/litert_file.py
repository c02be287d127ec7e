"""LiteRT (TensorFlow Lite) files, of its built-in operations only."""

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainers.formats.metadata import LITERT_NAME
from trainers.formats.metadata import Metadata
from trainers.formats.metadata import to_json
from trainers.formats.saved_model import SERVING
from trainers.formats.saved_model import Function
from trainers.formats.saved_model import save_functions
from trainers.formats.served_model import ServedModel
from trainers.utils.errors import ExportError


def write_litert(
    served: ServedModel, function: Function, spec: tf.TensorSpec, path: str, metadata: Metadata
) -> None:
    """Writes one function of a model as the signature `serving_default` of a file.

    Args:
        served: The model.
        function: One of its functions.
        spec: What it takes; the batch may be unknown.
        path: The file.
        metadata: What the file says of the model, as JSON under the name `LITERT_NAME`.

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
        # The converter's own errors are of several kinds, all with long texts.
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
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

"""ONNX files."""

from pathlib import Path

import tensorflow as tf

from trainers.formats.metadata import Metadata
from trainers.formats.metadata import to_strings
from trainers.formats.saved_model import Function
from trainers.formats.saved_model import named_function
from trainers.formats.saved_model import named_spec
from trainers.formats.served_model import ServedModel
from trainers.utils.errors import ExportError

# The oldest that has all operations of these models, for the sake of old runtimes.
_OPSET = 17


def write_onnx(
    served: ServedModel, function: Function, spec: tf.TensorSpec, path: str, metadata: Metadata
) -> None:
    """Writes one function of a model.

    Args:
        served: The model.
        function: One of its functions.
        spec: What it takes; the batch may be unknown.
        path: The file.
        metadata: What the file says of the model, as `metadata_props`.

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
        )
    # The converter's own errors are of several kinds, all with long texts.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"{served.model.name} cannot be converted to ONNX: {reason}") from error
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, to_strings(metadata))
    Path(path).write_bytes(model.SerializeToString())

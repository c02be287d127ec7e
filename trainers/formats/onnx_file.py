"""ONNX files."""

import tensorflow as tf

from trainers.errors import ExportError
from trainers.formats.saved_model import Function
from trainers.formats.saved_model import named_function
from trainers.formats.saved_model import named_spec
from trainers.formats.served_model import ServedModel

# The oldest that has all operations of these models, for the sake of old runtimes.
_OPSET = 17


def write_onnx(served: ServedModel, function: Function, spec: tf.TensorSpec, path: str) -> None:
    """Writes one function of a model.

    Args:
        served: The model.
        function: One of its functions.
        spec: What it takes; the batch may be unknown.
        path: The file.

    Raises:
        ExportError: If an operation has no counterpart.
    """
    import tf2onnx

    try:
        tf2onnx.convert.from_function(
            named_function(function, spec),
            input_signature=[named_spec(spec)],
            opset=_OPSET,
            output_path=path,
        )
    # The converter's own errors are of several kinds, all with long texts.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"{served.model.name} cannot be converted to ONNX: {reason}") from error

"""Writes SavedModels: a folder for TensorFlow, TensorFlow Serving and their converters."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainers.exporting.served_model import ServedModel

#: Takes uint8 images of any size; a server calls it by default.
SERVING = "serving_default"
#: Takes normalised float32 images of the model's size.
NORMALIZED = "normalized"
INPUT = "images"
OUTPUT = "logits"

Function = Callable[[tf.Tensor], tf.Tensor]


def write_saved_model(served: ServedModel, path: str) -> None:
    """Writes a SavedModel with both signatures into a new folder."""
    functions = {
        SERVING: (served.logits_of_any_size, tf.TensorSpec((None, *served.any_shape), tf.uint8)),
        NORMALIZED: (served.logits, tf.TensorSpec((None, *served.input_shape), tf.float32)),
    }
    save_functions(served, functions, path)


def save_functions(
    served: ServedModel, functions: Mapping[str, tuple[Function, tf.TensorSpec]], path: str
) -> None:
    """Writes functions of a model as the signatures of a SavedModel, with what they take.

    Only the weights of the model are stored.
    """
    module = tf.Module()
    # Not the model itself: TensorFlow would store the structure of its Python objects.
    module.weights = [variable.value for variable in served.model.variables]
    signatures = {
        name: named_function(*function).get_concrete_function()
        for name, function in functions.items()
    }
    tf.saved_model.save(module, path, signatures=signatures)


def named_function(function: Function, spec: tf.TensorSpec) -> Any:
    """Returns a `tf.function` from `images`, of the given specification, to `{"logits": ...}`."""

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: function(images)}

    return tf.function(answer, input_signature=[named_spec(spec)])


def named_spec(spec: tf.TensorSpec) -> tf.TensorSpec:
    """Returns the specification of a tensor, with the name `images`."""
    return tf.TensorSpec(spec.shape, spec.dtype, name=INPUT)

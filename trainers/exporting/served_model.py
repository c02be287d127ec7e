"""Defines the functions that an export may hold: a model with its normalization and resizing."""

from typing import Any

import keras
import tensorflow as tf

from trainers.data.preprocessing.examples import evaluation_input
from trainers.data.preprocessing.normalization import normalize
from trainers.experiment import TrainedModel
from trainers.experiment import global_dtype_policy


class ServedModel(TrainedModel):
    """A model in float32 with the functions that an export may hold; they return logits (B, K)."""

    @classmethod
    def of(cls, trained: TrainedModel) -> "ServedModel":
        """Returns a model of any dtype policy in float32."""
        return cls(**{**vars(trained), "model": in_float32(trained.model)})

    def logits(self, normalized: tf.Tensor) -> tf.Tensor:
        """Returns the logits of normalised inputs, float32 (B, *input_shape)."""
        return self.model(normalized, training=False)

    def logits_of_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """Returns the logits of inputs of the model's size, uint8 (B, *input_shape)."""
        return self.logits(normalize(pixels, self.normalization))

    def logits_of_any_size(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the logits of images, or videos, of any one size, uint8."""
        pixels = tf.map_fn(
            self.resized, images, fn_output_signature=tf.TensorSpec(self.input_shape, tf.uint8)
        )
        return self.logits_of_pixels(pixels)

    def resized(self, image: tf.Tensor) -> tf.Tensor:
        """Returns an image of any size as an evaluation takes it; of a video, the middle clip.

        Both are uint8; the result has the `input_shape`.
        """
        kind = "video" if self.takes_videos else "image"
        return evaluation_input({kind: image}, self.preprocessing, views=False)


def in_float32(model: keras.Model) -> keras.Model:
    """Returns the model with every layer's policy float32, and the same weights.

    It is the same object if the model has these policies already. Keras must be able to serialise
    the layers, as in a `.keras` file.
    """
    description = keras.saving.serialize_keras_object(model)
    wanted = _with_policy(description, "float32")
    if wanted == description:
        return model
    # For layers that take the global policy, such as the model itself.
    with global_dtype_policy("float32"):
        copy = keras.saving.deserialize_keras_object(wanted)
    copy.set_weights(model.get_weights())
    return copy


def _with_policy(value: Any, name: str) -> Any:
    """Returns a serialised object with all its dtype policies replaced."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return {**value, "config": {"name": name}}
        return {key: _with_policy(part, name) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_policy(part, name) for part in value)
    return value

"""Defines the functions that an export may hold: a model with its normalization and resizing."""

from typing import Any

import keras
import tensorflow as tf

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.examples import evaluation_input
from trainers.data.preprocessing.normalization import normalize
from trainers.experiment import TrainedModel


class ServedModel:
    """The functions of a model that an export may hold; all return float32 logits (B, K).

    Args:
        trained: A model of any dtype policy.

    Attributes:
        model: In float32; takes (B, H, W, 3), or (B, T, H, W, 3) of videos.
        preprocessing: How an evaluation cuts and resizes its inputs.
        normalization: Name of the input normalisation.
        takes_videos: Whether the model takes clips of videos.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self.model = in_float32(trained.model)
        self.preprocessing = trained.preprocessing
        self.normalization = trained.normalization
        self.takes_videos = trained.takes_videos

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an input: (H, W, 3), or (T, H, W, 3) of videos."""
        image = (*self.preprocessing.image_size, 3)
        if isinstance(self.preprocessing, VideoPreprocessingConfig):
            return (self.preprocessing.num_frames, *image)
        return image

    @property
    def any_shape(self) -> tuple[int | None, ...]:
        """The shape of an image of any size, or of a video of any length and size."""
        return (*(None for _ in self.input_shape[:-1]), 3)

    @property
    def weight_bytes(self) -> int:
        """The size of the weights in float32."""
        return 4 * int(self.model.count_params())

    def logits(self, normalized: tf.Tensor) -> tf.Tensor:
        """Returns the logits of normalised inputs, float32 (B, *input_shape)."""
        return self.model(normalized, training=False)

    def logits_of_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """Returns the logits of inputs of the model's size, uint8 (B, *input_shape)."""
        return self.logits(normalize(pixels, self.normalization))

    def logits_of_any_size(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the logits of images of any one size, uint8 (B, *any_shape)."""
        pixels = tf.map_fn(
            self.resized, images, fn_output_signature=tf.TensorSpec(self.input_shape, tf.uint8)
        )
        return self.logits_of_pixels(pixels)

    def resized(self, image: tf.Tensor) -> tf.Tensor:
        """Cuts and resizes one image as an evaluation does; of a video, the middle clip.

        The image is uint8 of `any_shape`, the result uint8 of `input_shape`.
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
    policy = keras.config.dtype_policy()
    # For layers that take the global policy, such as the model itself.
    keras.config.set_dtype_policy("float32")
    try:
        copy = keras.saving.deserialize_keras_object(wanted)
    finally:
        keras.config.set_dtype_policy(policy)
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

"""From bytes to the logits of each class: normalisation, the model, one answer from all views."""

import keras
import tensorflow as tf

from trainers.data.normalization import normalize
from trainers.view_reduction import ViewReduction

_RANK_OF_VIEWS = 6  # (batch, views, frames, height, width, channels)


def class_logits(
    model: keras.Model, inputs: tf.Tensor, normalization: str, view_reduction: ViewReduction
) -> tf.Tensor:
    """Returns what a model answers, float32 (B, K).

    Args:
        model: The Keras model.
        inputs: uint8 (B, H, W, 3), (B, T, H, W, 3) or with views (B, V, T, H, W, 3).
        normalization: Name of the input normalisation, done on the device.
        view_reduction: One answer from the views of a video.
    """

    def answer(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(normalize(images, normalization), training=False), tf.float32)

    if len(inputs.shape) < _RANK_OF_VIEWS:
        return answer(inputs)
    # One view after the other: the memory of a single clip each.
    views = tf.transpose(inputs, (1, 0, 2, 3, 4, 5))
    logits = tf.map_fn(answer, views, fn_output_signature=tf.float32, parallel_iterations=1)
    return view_reduction(logits)

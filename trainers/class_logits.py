"""From bytes to the logits of each class: normalisation, the model, one answer from all views."""

from typing import Any

import keras
from keras import ops

from trainers.data.preprocessing.normalization import normalize
from trainers.one_by_one import map_one_by_one
from trainers.view_reduction import ViewReduction

_RANK_OF_VIEWS = 6  # (batch, views, frames, height, width, channels)


def class_logits(
    model: keras.Model, inputs: Any, normalization: str, view_reduction: ViewReduction
) -> Any:
    """Returns what a model answers, float32 (B, K).

    Args:
        model: The Keras model.
        inputs: uint8 (B, H, W, 3), (B, T, H, W, 3) or with views (B, V, T, H, W, 3).
        normalization: Name of the input normalisation, done on the device.
        view_reduction: One answer from the views of a video.
    """

    def answer(images: Any) -> Any:
        return ops.cast(model(normalize(images, normalization), training=False), "float32")

    if len(inputs.shape) < _RANK_OF_VIEWS:
        return answer(inputs)
    # One view after the other: the memory of a single clip each.
    views = ops.transpose(inputs, (1, 0, 2, 3, 4, 5))
    return view_reduction(map_one_by_one(answer, views))

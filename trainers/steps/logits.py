"""Normalizes pixels, applies the model and reduces the logits of views to one answer."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from trainers.configuration.checks import check_choice
from trainers.configuration.data_options import VIEW_REDUCTIONS
from trainers.data.preprocessing.normalization import normalize
from trainers.steps.losses import LOSSES

#: From the logits of all views, (views, B, K), to those of the videos, (B, K).
ViewReduction = Callable[[Any], Any]


def make_view_reduction(kind: str, loss: str) -> ViewReduction:
    """Returns a function from the logits of all views to logits of the videos.

    Args:
        kind: `"logits"` averages them, as the reference's ViViT does; `"probabilities"` averages
            the probabilities, and returns the logits of the average; `"max"` takes the largest
            logit of each class (usual for Charades). Another raises a ConfigurationError.
        loss: Name of the loss, which defines the probabilities.
    """
    check_choice("video.view_reduction", kind, VIEW_REDUCTIONS)
    reductions: dict[str, ViewReduction] = {
        "logits": lambda logits: ops.mean(logits, axis=0),
        "probabilities": LOSSES[loss].average,
        "max": lambda logits: ops.max(logits, axis=0),
    }
    return reductions[kind]


_RANK_OF_VIEWS = 6  # (batch, views, frames, height, width, channels)


def class_logits(
    model: keras.Model, inputs: Any, normalization: str, view_reduction: ViewReduction
) -> Any:
    """Returns a model's logits, float32 (B, K).

    `inputs` are uint8 (B, H, W, C), (B, T, H, W, C) or with views (B, V, T, H, W, C).
    """

    def answer(images: Any) -> Any:
        return ops.cast(model(normalize(images, normalization), training=False), "float32")

    if len(inputs.shape) < _RANK_OF_VIEWS:
        return answer(inputs)
    # One view at a time needs the memory of a single clip.
    views = ops.transpose(inputs, (1, 0, 2, 3, 4, 5))
    return view_reduction(sequential_map(answer, views))


def sequential_map(function: Callable[[Any], Any], values: Any) -> Any:
    """Maps a function over the first axis with the memory of one slice; float32, stacked."""
    if keras.backend.backend() == "tensorflow":
        # `keras.ops.map` would run ten of them at a time, with the memory of ten.
        return tf.map_fn(function, values, fn_output_signature=tf.float32, parallel_iterations=1)
    return keras.ops.map(function, values)

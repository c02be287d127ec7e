"""Takes a uniform subset of a video's frames."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.layers.checks import check_positive_integer
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE


def uniform_frame_indices(num_frames: int, num_samples: int) -> list[int]:
    """Returns exactly `num_samples` indices, evenly spaced inside the video.

    The i-th is `round((i + 1) * num_frames / (num_samples + 1))`, halves to even as
    in NumPy. The reference computes the same with a floating-point range, which for
    many sizes runs over the end and gives one frame too many. All frames are taken as
    they are.
    """
    if num_samples == num_frames:
        return list(range(num_frames))
    steps = np.arange(1, num_samples + 1) * (num_frames / (num_samples + 1))
    return [int(index) for index in np.round(steps)]


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class FrameSampling(keras.layers.Layer):
    """`(batch, time, ...)` to `(batch, num_samples, ...)`.

    Args:
        num_samples: Number of frames to keep, at most the number of frames.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the number of frames is unknown or below `num_samples`.

    Reference:
        scenic `projects/vivit/model_utils.py`, `sample_frames_uniformly`.
    """

    def __init__(self, num_samples: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_samples = check_positive_integer(num_samples, "num_samples")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        frames = input_shape[1]
        if frames is None or frames < self.num_samples:
            raise ValueError(
                f"FrameSampling '{self.name}' takes {self.num_samples} frames of a "
                "video of known length, at least that long. Received shape "
                f"{tuple(input_shape)}."
            )
        self._indices = uniform_frame_indices(frames, self.num_samples)

    def call(self, x: Any) -> Any:
        return ops.take(x, self._indices, axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.num_samples, *input_shape[2:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_samples": self.num_samples}

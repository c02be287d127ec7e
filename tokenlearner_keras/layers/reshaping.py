"""Folds a sequence into its grid, cuts out a part of it, and samples frames."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_sizes


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class FoldGrid(ConfiguredLayer):
    """`(batch, prod(grid), channels)` becomes `(batch, *grid, channels)`, a mask likewise.

    A Reshape that knows it holds a position grid, `(height, width)` or `(time, height, width)`, so
    that `tk.resize_model` can change it.
    """

    _saved_arguments = ("grid",)

    def __init__(self, grid: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = check_sizes(grid, "grid")
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        return ops.reshape(x, (-1, *self.grid, x.shape[-1]))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        del inputs
        return None if previous_mask is None else ops.reshape(previous_mask, (-1, *self.grid))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, positions, channels = input_shape
        if positions is not None and positions != math.prod(self.grid):
            raise ValueError(
                f"FoldGrid '{self.name}' folds {math.prod(self.grid)} positions into the grid "
                f"{self.grid}. Received shape {tuple(input_shape)}."
            )
        return (batch, *self.grid, channels)


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class SequencePart(ConfiguredLayer):
    """`x[:, start:stop]` of a sequence `(batch, positions, channels)` and of its mask.

    A slice written as `x[:, 1:]` becomes an operation with a name that Keras chooses,
    which a model loaded from a file may already have; a layer is named by its owner.
    """

    _saved_arguments = ("start", "stop")

    def __init__(self, start: int = 0, stop: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.stop = stop
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        return x[:, self.start : self.stop]

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        del inputs
        return None if previous_mask is None else previous_mask[:, self.start : self.stop]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, positions, channels = input_shape
        if positions is None:
            # The number of first positions is known whatever the length; that of the rest is not.
            return (batch, None if self.stop is None else self.stop - self.start, channels)
        return (batch, len(range(positions)[self.start : self.stop]), channels)


def uniform_frame_indices(num_frames: int, num_samples: int) -> tuple[int, ...]:
    """Returns exactly `num_samples` indices, evenly spaced inside the video.

    The i-th is `round((i + 1) * num_frames / (num_samples + 1))`, halves to even as in NumPy. The
    reference computes the same with a floating-point range, which for many sizes runs over the end
    and gives one frame too many. All frames are taken as they are.
    """
    if num_samples == num_frames:
        return tuple(range(num_frames))
    steps = np.arange(1, num_samples + 1) * (num_frames / (num_samples + 1))
    return tuple(int(index) for index in np.round(steps))


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class FrameSampling(ConfiguredLayer):
    """`(batch, time, ...)` to `(batch, num_samples, ...)`, the frames evenly spaced.

    Raises:
        ValueError: If the number of frames is unknown or below `num_samples`.

    Reference:
        scenic `projects/vivit/model_utils.py`, `sample_frames_uniformly`.
    """

    _saved_arguments = ("num_samples",)

    def __init__(self, num_samples: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_samples = check_positive_integer(num_samples, "num_samples")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        frames = input_shape[1]
        if frames is None or frames < self.num_samples:
            raise ValueError(
                f"FrameSampling '{self.name}' takes {self.num_samples} frames of a video of known "
                f"length, at least that long. Received shape {tuple(input_shape)}."
            )
        self._indices = uniform_frame_indices(frames, self.num_samples)

    def call(self, x: Any) -> Any:
        return ops.take(x, self._indices, axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.num_samples, *input_shape[2:])

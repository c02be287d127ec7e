"""Tubelet kernels from 2-D patch kernels: inflation of weights and initialisation."""

from typing import Any

import keras
import numpy as np

from tokenlearner_keras.layers.checks import check_choice
from tokenlearner_keras.layers.checks import check_positive_integer
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE

METHODS = ("average", "central_frame")


def frame_weights(num_frames: int, method: str) -> np.ndarray:
    """Returns the share of the 2-D kernel that each frame of a tubelet receives.

    `"average"` gives every frame `1 / num_frames`; `"central_frame"` gives the frame
    `num_frames // 2` everything. The shares sum to 1, so a still video gets the
    embedding of its image.

    Raises:
        ValueError: If the method is unknown or `num_frames` no positive integer.
    """
    check_choice(method, METHODS, "method")
    check_positive_integer(num_frames, "num_frames")
    if method == "average":
        return np.full(num_frames, 1 / num_frames, "float32")
    return (np.arange(num_frames) == num_frames // 2).astype("float32")


def inflate_kernel(kernel: np.ndarray, num_frames: int, method: str) -> np.ndarray:
    """Returns a tubelet kernel `(time, height, width, in, out)` for a 2-D kernel.

    Args:
        kernel: `(height, width, in, out)`.
        num_frames: Frames of the tubelet.
        method: `"average"` or `"central_frame"`, see `frame_weights`.

    Reference:
        Arnab et al. 2021, arXiv 2103.15691, section 3.4. The reference's own
        from-scratch central-frame initialiser keeps a column of the width, not a frame.
    """
    kernel = np.asarray(kernel)
    shares = frame_weights(num_frames, method).astype(kernel.dtype)
    return shares[:, None, None, None, None] * kernel[None]


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class InflatedKernel(keras.initializers.Initializer):
    """Draws a 2-D LeCun-normal kernel and inflates it to the tubelet's frames.

    Args:
        method: `"average"` or `"central_frame"`.
        seed: Seed of the draw; None draws one.

    Raises:
        ValueError: If the method is unknown.

    Reference:
        scenic `projects/vivit/model_utils.py`, `average_frame_initializer` and
        `central_frame_initializer`. Here the central frame is one along time, and the
        2-D kernel is drawn for the fan-in of an image's patch, so that a still video is
        embedded on the scale of an image.
    """

    def __init__(self, method: str, seed: int | None = None) -> None:
        self.method = check_choice(method, METHODS, "method")
        self.seed = seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        kernel = keras.initializers.LecunNormal(seed=self.seed)(shape[1:], dtype=dtype)
        shares = keras.ops.cast(frame_weights(shape[0], self.method), kernel.dtype)
        return keras.ops.reshape(shares, (-1, 1, 1, 1, 1)) * kernel

    def get_config(self) -> dict[str, Any]:
        return {"method": self.method, "seed": self.seed}

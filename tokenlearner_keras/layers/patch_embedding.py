"""Cuts images or videos into patches and embeds each one linearly."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import check_channels_last
from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_floats
from tokenlearner_keras.layers.common import check_grid
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import convolve


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class PatchEmbedding(ConfiguredLayer):
    """A convolution whose stride is its kernel: one token per patch (or tubelet).

    Edge pixels that do not fill a patch are dropped (grids are floored).

    Args:
        width: Channels of a token.
        patch_size: `(height, width)` of a patch in pixels.
        tubelet_size: Frames of a tubelet, for inputs of rank 5. With 1 the kernel is a 2-D one
            that is applied to every frame.
        tubelet_inflation: How a tubelet's kernel starts: `"average"` or `"central_frame"`
            inflates a 2-D kernel, see `frame_weights`; None draws all frames at random.

    Input shape: `(batch, height, width, channels)` or `(batch, time, height, width, channels)`.
    Output shape: `(batch, [time // tubelet_size,] height // patch, width // patch, width)`.

    Reference:
        scenic `projects/token_learner/model.py` and `projects/vivit/model.py`: VALID convolution
        with bias, LeCun-normal kernel, `kernel_init_method` for tubelets.
    """

    _saved_arguments = ("width", "patch_size", "tubelet_size", "tubelet_inflation")

    def __init__(
        self,
        width: int,
        patch_size: tuple[int, int],
        tubelet_size: int = 1,
        tubelet_inflation: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.width = check_positive_integer(width, "width")
        self.patch_size = check_grid(patch_size, "patch_size")
        self.tubelet_size = check_positive_integer(tubelet_size, "tubelet_size")
        self.tubelet_inflation = check_inflation(tubelet_inflation, self.tubelet_size)

    @property
    def inflation_of_images(self) -> str:
        """How an image model's kernel fills a tubelet: as a new one, else the central frame."""
        return self.tubelet_inflation or "central_frame"

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._check_shape(input_shape)
        options: dict[str, Any] = {
            "filters": self.width,
            "kernel_initializer": "lecun_normal",
            "data_format": "channels_last",
            "dtype": self.dtype_policy,
            "name": "projection",
        }
        if self.tubelet_size == 1:
            self.projection = keras.layers.Conv2D(
                kernel_size=self.patch_size, strides=self.patch_size, **options
            )
            self.projection.build((None, *input_shape[-3:]))
        else:
            kernel = (self.tubelet_size, *self.patch_size)
            if self.tubelet_inflation is not None:
                options["kernel_initializer"] = InflatedKernel(self.tubelet_inflation)
            self.projection = keras.layers.Conv3D(kernel_size=kernel, strides=kernel, **options)
            self.projection.build(input_shape)

    def call(self, x: Any) -> Any:
        self._check_shape(x.shape)
        check_floats(x, f"PatchEmbedding '{self.name}'")
        if len(x.shape) == 4 or self.tubelet_size > 1:
            return self._project(x)
        dimensions = ops.shape(x)
        frames = ops.reshape(x, (-1, *dimensions[2:]))  # (B*T, H, W, C)
        patches = self._project(frames)  # (B*T, h, w, D)
        return ops.reshape(patches, (*dimensions[:2], *ops.shape(patches)[1:]))

    def _project(self, x: Any) -> Any:
        """Applies the projection, as a matmul where that is faster.

        It is for tubelets, and for images on JAX's and PyTorch's processors. A TPU moves fewer
        bytes for a convolution of images, and TensorFlow's XLA takes less time.
        """
        backend, tubelets = keras.backend.backend(), len(x.shape) == 5
        if not tubelets and backend == "tensorflow":
            return convolve(self.projection, x)
        if not tubelets and backend == "torch" and x.device.type != "cpu":
            return self.projection(x)
        arrays = (x, *map(ops.convert_to_tensor, (self.projection.kernel, self.projection.bias)))
        if tubelets or backend == "torch":
            return patch_matmul(*arrays)
        import jax

        # A program may be compiled for another platform than that of this process.
        return jax.lax.platform_dependent(*arrays, cpu=patch_matmul, default=_convolution)

    def _check_shape(self, shape: Any) -> None:
        shape = tuple(shape)
        ranks = (5,) if self.tubelet_size > 1 else (4, 5)
        if len(shape) not in ranks or shape[-1] is None:
            raise ValueError(
                f"PatchEmbedding '{self.name}' with tubelet_size={self.tubelet_size} "
                f"expects an input of rank {' or '.join(map(str, ranks))}, channels "
                f"last and known. Received shape {shape}."
            )
        check_channels_last(len(shape), f"PatchEmbedding '{self.name}'")
        block = (self.tubelet_size, *self.patch_size)[-len(shape) + 2 :]
        for size, patch in zip(shape[1:-1], block, strict=True):
            if size is not None and size < patch:
                raise ValueError(
                    f"PatchEmbedding '{self.name}' needs at least one whole patch of {block}. "
                    f"Received shape {shape}. Use larger images or smaller patches."
                )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        self._check_shape(input_shape)
        block = (self.tubelet_size, *self.patch_size)[-len(input_shape) + 2 :]
        sizes = zip(input_shape[1:-1], block, strict=True)
        grid = (None if size is None else size // patch for size, patch in sizes)
        return (input_shape[0], *grid, self.width)


METHODS = ("average", "central_frame")


def check_inflation(inflation: str | None, tubelet_size: int) -> str | None:
    """Returns `inflation`; raises ValueError unless it is None or inflates to several frames."""
    check_choice(inflation, (None, *METHODS), "tubelet_inflation")
    if inflation is not None and tubelet_size == 1:
        raise ValueError(
            "`tubelet_inflation` needs tubelets of several frames: set tubelet_size above 1. "
            f"Received tubelet_inflation={inflation!r}, tubelet_size=1."
        )
    return inflation


def patch_matmul(x: Any, kernel: Any, bias: Any) -> Any:
    """Returns the convolution whose stride is its kernel, as a matmul of flattened patches.

    `x` is `(batch, [time,] height, width, channels)`, the kernel `(*block, channels, width)`, and
    the output `(batch, *grid, width)`. Edges that do not fill a block are dropped.
    """
    *block, channels, width = kernel.shape
    batch, *sizes, _ = ops.shape(x)
    grid = [size // side for size, side in zip(sizes, block, strict=True)]
    whole = [slice(count * side) for count, side in zip(grid, block, strict=True)]
    frames, rows, columns = (1, *block)[-3:]
    time, height, across = (1, *grid)[-3:]
    # Six axes: LiteRT transposes no more.
    folds = (batch * time, frames, height, rows, across, columns * channels)
    x = ops.transpose(ops.reshape(x[:, *whole], folds), (0, 2, 4, 1, 3, 5))
    x = ops.reshape(x, (batch, *grid, math.prod(block) * channels))
    return ops.matmul(x, ops.reshape(kernel, (-1, width))) + bias


def _convolution(x: Any, kernel: Any, bias: Any) -> Any:
    strides = kernel.shape[:-2]
    return ops.conv(x, kernel, strides, padding="valid", data_format="channels_last") + bias


def frame_weights(num_frames: int, method: str) -> np.ndarray:
    """Returns the share of the 2-D kernel that each frame of a tubelet receives.

    `"average"` gives every frame `1 / num_frames`; `"central_frame"` gives the frame
    `num_frames // 2` everything. The shares sum to 1, so a still video gets the
    embedding of its image.
    """
    check_choice(method, METHODS, "method")
    if method == "average":
        return np.full(num_frames, 1 / num_frames, "float32")
    return (np.arange(num_frames) == num_frames // 2).astype("float32")


def inflate_kernel(kernel: np.ndarray, num_frames: int, method: str) -> np.ndarray:
    """Returns the kernel `(time, height, width, in, out)` of a 2-D one `(height, width, in, out)`.

    The method is one of `METHODS`, see `frame_weights`.

    Reference:
        Arnab et al. 2021, arXiv 2103.15691, section 3.4. The reference's own
        from-scratch central-frame initialiser keeps a column of the width, not a frame.
    """
    kernel = np.asarray(kernel)
    shares = frame_weights(num_frames, method).astype(kernel.dtype)
    return shares[:, None, None, None, None] * kernel[None]


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns a patch kernel `(*block, in, out)` for inputs of so many channels.

    For one channel the kernel is summed over its own: a grey image is embedded as the same image
    repeated to RGB. For any other number it is repeated in a cycle and scaled by `in / channels`,
    which keeps the embedding of equal channels if `in` divides `channels`, else its scale.
    """
    own = kernel.shape[-2]
    if channels == own:
        return kernel
    if channels == 1:
        return kernel.sum(axis=-2, keepdims=True)
    scale = np.asarray(own / channels, kernel.dtype)
    return kernel[..., np.arange(channels) % own, :] * scale


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class InflatedKernel(keras.initializers.Initializer):
    """Draws a 2-D LeCun-normal kernel and inflates it by `frame_weights`; the seed None draws one.

    Reference:
        scenic `projects/vivit/model_utils.py`, `average_frame_initializer` and
        `central_frame_initializer`. Here the central frame is one along time, and the 2-D kernel
        is drawn for the fan-in of an image's patch, so that a still video is embedded on the scale
        of an image.
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

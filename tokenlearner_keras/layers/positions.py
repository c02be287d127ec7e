"""Shapes of position grids: (B, N, C), (B, H, W, C) and (B, T, H, W, C)."""

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras

Dimension = Any  # An int, None (unknown, symbolic) or a scalar tensor (unknown, run time)


class PositionShape(NamedTuple):
    """An input shape cut into what a tokenizer needs.

    Attributes:
        leading: Dimensions that are kept: ``(B,)``, or ``(B, T)`` for video.
        grid: Positions of one frame: ``(N,)`` or ``(H, W)``.
        channels: The last dimension.
    """

    leading: tuple[Dimension, ...]
    grid: tuple[Dimension, ...]
    channels: Dimension

    @property
    def folded_grid(self) -> tuple[Dimension, ...]:
        """Shape with the leading dimensions folded into one: (B*T, \\*grid, C)."""
        return (-1, *self.grid, self.channels)


def split_shape(shape: Sequence[Dimension], owner: str) -> PositionShape:
    """Cuts a shape of rank 3, 4 or 5 into leading, grid and channel dimensions.

    Args:
        shape: The whole input shape.
        owner: Name of the layer, for the message.

    Raises:
        ValueError: If the rank is not 3, 4 or 5, or the channels are unknown.
    """
    dimensions = tuple(shape)
    rank = len(dimensions)
    if rank not in (3, 4, 5):
        raise ValueError(
            f"{owner} expects an input of rank 3 (batch, positions, channels), 4 "
            "(batch, height, width, channels) or 5 (batch, time, height, width, "
            f"channels). Received shape {dimensions} of rank {rank}. Reshape the "
            "input, channels last."
        )
    if dimensions[-1] is None:
        raise ValueError(
            f"{owner} needs to know the number of channels. Received shape "
            f"{dimensions}, whose last dimension is None. Give the input a fixed "
            "last dimension."
        )
    if rank == 3:
        return PositionShape(dimensions[:1], dimensions[1:2], dimensions[-1])
    return PositionShape(dimensions[: rank - 3], dimensions[rank - 3 : -1], dimensions[-1])


def check_floats(x: Any, owner: str) -> None:
    """Raises ValueError unless a tensor holds floating-point numbers."""
    dtype = str(getattr(x.dtype, "name", x.dtype)).removeprefix("torch.")
    if not dtype.startswith(("float", "bfloat")):
        raise ValueError(
            f"{owner} expects floating-point inputs. Received {dtype}. Cast them first, pixels "
            "also to the range of the model, such as keras.ops.cast(x, 'float32') / 255."
        )


def check_channels_last(rank: int, owner: str) -> None:
    """Raises ValueError if Keras is set to channels first and the rank is that of images."""
    if rank > 3 and keras.backend.image_data_format() == "channels_first":
        raise ValueError(
            f"{owner} takes images and videos channels last, but Keras is set to channels "
            "first. Call keras.backend.set_image_data_format('channels_last'). A layer also "
            "takes a sequence (batch, positions, channels) as it is."
        )


def check_channels(shape: PositionShape, expected: int | None, owner: str) -> None:
    """Raises ValueError if the channels differ from those the layer was built for."""
    if expected is not None and shape.channels != expected:
        raise ValueError(
            f"{owner} was built for inputs with {expected} channels. Received "
            f"{shape.channels} channels (leading {shape.leading}, grid {shape.grid})."
            " Use a new layer for inputs of another width."
        )


def check_mask(mask_shape: Sequence[Dimension], shape: PositionShape, owner: str) -> None:
    """Raises ValueError unless a mask has the input's shape without its channels."""
    expected = (*shape.leading, *shape.grid)
    received = tuple(mask_shape)
    fits = len(received) == len(expected) and all(
        not isinstance(a, int) or not isinstance(b, int) or a == b
        for a, b in zip(received, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{owner} expects a mask with the input's shape without its channels, "
            f"{expected}, True where a position is real. Received a mask of shape "
            f"{received}."
        )

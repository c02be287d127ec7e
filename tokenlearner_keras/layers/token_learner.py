"""TokenLearner v1.0: tokens from a stack of convolutions and a sigmoid."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.base_token_learner import PositionShape
from tokenlearner_keras.layers.base_token_learner import WeightedSumTokenLearner
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_grid
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import convolve
from tokenlearner_keras.layers.common import is_half_precision
from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.layers.common import plain_unless_differentiated
from tokenlearner_keras.layers.mlp import gelu
from tokenlearner_keras.layers.mlp import normalized
from tokenlearner_keras.layers.mlp import normalized_matmul

NUM_CONVOLUTIONS = 4
KERNEL_SIZE = 3


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class TokenLearner(WeightedSumTokenLearner):
    """TokenLearner v1.0, the module of the paper's experiments.

    Each of the S tokens is a sum over all positions of the input, weighted by a spatial map in
    (0, 1) that 3x3 convolutions and a sigmoid compute from the normalised input: `z[s] =
    sum_n sigmoid(a[s, n]) * x[n]`. The values are the raw, un-normalised input.

    Under `mixed_float16` the sums, and their gradients, are finite while they stay below
    65,504, the largest number of float16.

    Args:
        num_tokens: Number of learned tokens S.
        pooling: `"sum"` over the positions (the reference's default) or `"mean"` (the paper's
            text). They differ by the number of positions.
        grid_size: `(height, width)` of the grid, for inputs with an axis of positions in place of
            height and width. None takes a square grid.
        num_convolutions: Convolutions that compute the maps, GELU between them: the reference's
            four; 1 in the paper's convolutional video models.
        per_frame: Whether each frame of a video gets its own tokens. False: S tokens for the
            whole clip. The maps are computed frame by frame as before, but each token is the sum
            (or mean) over all T*N positions. These tokens have no time axis: what they know of
            time comes from the positions that were added to the input.
        active_tokens: Gives only the first of the tokens, as many as this, without computing the
            others; see `tk.set_num_tokens`. None: all.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: `(batch, positions, channels)`, `(batch, height, width, channels)` or `(batch, time,
            height, width, channels)`, whose frames are tokenized one by one with the same weights.
            With `per_frame=False`, rank 4 is `(batch, time, positions, channels)` and rank 3 a
            single frame.
        mask: Optional boolean of `x`'s shape without the channels, True where a position is real;
            with `per_frame=False` also `(batch, time)`, True for real frames. No output depends on
            values at masked positions; a mean divides by the number of real positions; if none is
            real the tokens are zero.
        return_attention_maps: If True, returns `(tokens, maps)`.
        training: Unused (the layer has no dropout).

    Returns:
        Tokens `(batch, num_tokens, channels)`, or `(batch, time, num_tokens, channels)`, in the
        layer's compute dtype. The maps are the sigmoid weights in [0, 1], float32 (float64 in a
        float64 layer): `(batch, num_tokens, positions)`, `(batch, num_tokens, height, width)` or
        `(batch, time, num_tokens, height, width)`. With `per_frame=False` the tokens are
        `(batch, num_tokens, channels)`, the maps `(batch, num_tokens, time, height, width)` or
        `(batch, num_tokens, time, positions)`.

    Raises:
        ValueError: If an argument is out of range, the input has another rank or number of
            channels, or a sequence does not fit the grid.

    Example:
        >>> layer = tk.TokenLearner(num_tokens=8)
        >>> layer(keras.random.normal((2, 14, 14, 192))).shape
        (2, 8, 192)

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, section 2; scenic `projects/token_learner/model.py`,
        `TokenLearnerModule`.
    """

    _saved_arguments = (
        "num_tokens",
        "pooling",
        "grid_size",
        "num_convolutions",
        "per_frame",
        "active_tokens",
    )
    _built_attributes = ("_channels", "norm", "convolutions")

    def __init__(
        self,
        num_tokens: int = 8,
        pooling: str = "sum",
        grid_size: tuple[int, int] | None = None,
        num_convolutions: int = NUM_CONVOLUTIONS,
        per_frame: bool = True,
        active_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_tokens, per_frame, active_tokens=active_tokens, **kwargs)
        self.pooling = check_choice(pooling, ("sum", "mean"), "pooling")
        self.grid_size = optional(check_grid, grid_size, "grid_size")
        self.num_convolutions = check_positive_integer(num_convolutions, "num_convolutions")

    def _build_attention(self, channels: int) -> None:
        self.convolutions = []
        for index in range(self.num_convolutions):
            convolution = keras.layers.Conv2D(
                self.num_tokens,
                kernel_size=KERNEL_SIZE,
                padding="same",
                use_bias=False,
                kernel_initializer="lecun_normal",
                data_format="channels_last",
                dtype=self.dtype_policy,
                name=f"conv_{index}",
            )
            width = channels if index == 0 else self.num_tokens
            convolution.build((None, None, None, width))
            self.convolutions.append(convolution)

    def _attention_weights(self, values: Any, mask: Any, training: bool | None) -> Any:
        del training
        batch, *grid, channels = ops.shape(values)
        time, frame = self._split_time(grid)
        height, width = self._grid(frame)
        # The batch is named, not guessed: a sequence that does not fit the grid fails.
        frames = batch * time[0] if time else batch
        x = ops.reshape(values, (frames, height, width, channels))  # (B*T, H, W, C)
        if mask is not None:
            mask = ops.reshape(mask, (frames, height, width, 1))  # (B*T, H, W, 1)
        x = self._first_convolution(x, mask)  # (B*T, H, W, S)
        for index in range(1, self.num_convolutions):
            x = self._convolve(index, _only_real(gelu(x), mask))
        positions = math.prod((*time, height, width))
        logits = ops.reshape(x, (batch, positions, self._num_given))  # (B', N, S)
        return ops.sigmoid(ops.cast(logits, self._accumulation_dtype))

    def _first_convolution(self, x: Any, mask: Any) -> Any:
        """Convolves the normalised input: nearly all of the layer's work."""
        if is_half_precision(self.compute_dtype):
            # Shifted sums would round nine times.
            return self._convolve(0, _only_real(self.norm(x), mask))
        epsilon = self.norm.epsilon

        def plain(x: Any, mask: Any, gamma: Any, beta: Any, kernel: Any) -> Any:
            x = _only_real(normalized(x, gamma, beta, epsilon), mask)
            return ops.conv(x, kernel, padding="same", data_format="channels_last")

        def faster(x: Any, mask: Any, gamma: Any, beta: Any, kernel: Any) -> Any:
            columns = kernel_columns(kernel)  # (C, 9*S)
            products = normalized_matmul(x, gamma, beta, epsilon, columns)  # (B*T, H, W, 9*S)
            return shifted_sum(_only_real(products, mask))

        arrays = (x, mask, self.norm.gamma, self.norm.beta, self._kernel(0))
        return plain_unless_differentiated(plain, faster, *arrays)

    def _convolve(self, index: int, x: Any) -> Any:
        if not self._is_cut(index):
            return convolve(self.convolutions[index], x)
        kernel = ops.cast(self._kernel(index), x.dtype)
        return convolve(
            lambda x: ops.conv(x, kernel, padding="same", data_format="channels_last"), x
        )

    def _kernel(self, index: int) -> Any:
        """Returns a convolution's kernel, only the filters in use."""
        kernel = self.convolutions[index].kernel
        return kernel[..., : self.active_tokens] if self._is_cut(index) else kernel

    def _is_cut(self, index: int) -> bool:
        """Says whether a convolution gives fewer channels: the last one, which gives the maps."""
        return self.active_tokens is not None and index == self.num_convolutions - 1

    def _scale(self, tokens: Any, maps: Any, mask: Any) -> Any:
        if self.pooling == "sum":
            return tokens
        if mask is None:
            return tokens / ops.cast(ops.shape(maps)[-1], tokens.dtype)
        real = ops.reshape(mask, (ops.shape(maps)[0], 1, ops.shape(maps)[-1]))  # (B', 1, N)
        count = ops.sum(ops.cast(real, tokens.dtype), axis=-1, keepdims=True)
        return tokens / ops.maximum(count, 1)

    def _split_time(self, grid: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Returns the time of a clip taken together, () of a frame, and the grid of a frame."""
        has_time = not self.per_frame and len(grid) > 1
        return grid[:has_time], grid[has_time:]

    def _grid(self, grid: Sequence[Any]) -> tuple[Any, Any]:
        """Returns (height, width) for the grid (N,) of a sequence or (H, W)."""
        if len(grid) == 2:
            return grid[0], grid[1]
        positions = grid[0]
        whole = f"(batch, {'' if self.per_frame else 'time, '}height, width, channels)"
        if self.grid_size is not None:
            height, width = self.grid_size
            if isinstance(positions, int) and positions != height * width:
                raise ValueError(
                    f"{self._owner} has grid_size=({height}, {width}), which is "
                    f"{height * width} positions. Received a sequence of {positions}. "
                    f"Pass the right grid_size=(height, width), or an input of shape {whole}."
                )
            return self.grid_size
        known = isinstance(positions, int)
        side = math.isqrt(positions) if known else 0
        if not known or side * side != positions:
            raise ValueError(
                f"{self._owner} convolves over a grid and cannot tell it from a "
                f"sequence of {positions if known else 'unknown'} positions, which is "
                "no known square number. Either pass grid_size=(height, width) to the "
                f"layer, or give it an input of shape {whole}."
            )
        return side, side

    def _checked_shape(self, shape: Any, mask: Any = None) -> PositionShape:
        split = super()._checked_shape(shape, mask)
        self._grid(self._split_time(split.grid)[1])
        return split


def _padded(x: Any) -> Any:
    """Returns a grid with a border of zeros."""
    if keras.backend.backend() == "torch":
        from torch.nn.functional import pad

        return pad(x, (0, 0, 1, 1, 1, 1))  # Keras' own splits the graph of torch.compile
    return ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _only_real(x: Any, mask: Any) -> Any:
    """Zeroes padding before a convolution, which reads a position's neighbours."""
    return x if mask is None else ops.where(mask, x, ops.zeros_like(x))


def kernel_columns(kernel: Any) -> Any:
    """Returns the kernel `(3, 3, channels, filters)` as columns `(channels, 9 * filters)`.

    The columns of one place of the 3x3 window stand together.
    """
    channels = kernel.shape[2]
    return ops.reshape(ops.transpose(kernel, (2, 0, 1, 3)), (channels, -1))


def shifted_sum(products: Any) -> Any:
    """Sums the nine products `(batch, height, width, 9 * filters)` of each position's window.

    With `products = x @ kernel_columns(kernel)` this is the convolution of `x` with stride 1
    and zero padding: with few filters, a matmul to nine times as many columns uses a processor
    better than a convolution does.
    """
    padded = _padded(products)
    rows, columns = ops.shape(products)[1:3]
    places = ops.split(padded, KERNEL_SIZE**2, axis=-1)
    total = 0
    for place, products_of_place in enumerate(places):
        row, column = divmod(place, KERNEL_SIZE)
        total = total + products_of_place[:, row : row + rows, column : column + columns]
    return total

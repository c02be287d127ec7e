"""PatchMerger: tokens from learned queries, without an MLP and without convolutions."""

import math
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.base_token_learner import WeightedSumTokenLearner
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class PatchMerger(WeightedSumTokenLearner):
    """The PatchMerger: the simplest layer that learns tokens, a rival of TokenLearner.

    Every position is normalised. Its products with S learned queries, divided by the root of the
    channels, are the logits; a softmax over the positions, independently for each token, turns them
    into weights. Unlike in TokenLearner each token is the weighted sum of the normalised positions,
    not of the raw input. Any grid shape works.

    Args:
        num_tokens: Number of learned tokens S.
        per_frame: Whether each frame of a video gets its own tokens. False: S tokens for the
            whole clip, the softmax over all T*N positions. These tokens have no time axis: what
            they know of time comes from the positions that were added to the input.
        active_tokens: Gives only the first of the tokens, as many as this, without computing the
            others; see `tk.set_num_tokens`. None: all.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: `(batch, positions, channels)`, `(batch, height, width, channels)` or `(batch, time,
            height, width, channels)`, whose frames are tokenized one by one with the same weights.
            With `per_frame=False`, rank 4 is `(batch, time, positions, channels)` and rank 3 a
            single frame, or a clip laid out as one sequence.
        mask: Optional boolean of `x`'s shape without the channels, True where a position is real;
            with `per_frame=False` also `(batch, time)`, True for real frames. No output depends on
            values at masked positions; if none is real the tokens are zero.
        return_attention_maps: If True, returns `(tokens, maps)`.
        training: Unused (the layer has no dropout).

    Returns:
        Tokens `(batch, num_tokens, channels)`, or `(batch, time, num_tokens, channels)`, in the
        layer's compute dtype. The maps are float32 (float64 in a float64 layer): `(batch,
        num_tokens, positions)`, `(batch, num_tokens, height, width)` or `(batch, time, num_tokens,
        height, width)`; each sums to 1. With `per_frame=False` the tokens are `(batch,
        num_tokens, channels)`, the maps `(batch, num_tokens, time, height, width)` or `(batch,
        num_tokens, time, positions)`.

    Raises:
        ValueError: If an argument is out of range, or the input has another rank or number of
            channels.

    Example:
        >>> layer = tk.PatchMerger(num_tokens=8)
        >>> layer(keras.random.normal((2, 14, 14, 192))).shape
        (2, 8, 192)

    Reference:
        Renggli et al. 2022, arXiv 2202.12015: `softmax(W^T X^T) X` of the normalised X. Dividing
        by the root of the channels, as in vit-pytorch, and starting the queries Glorot-uniform
        are choices of this package.
    """

    _built_attributes = ("_channels", "norm", "queries")

    def __init__(
        self,
        num_tokens: int = 8,
        per_frame: bool = True,
        active_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_tokens, per_frame, active_tokens=active_tokens, **kwargs)

    def _build_attention(self, channels: int) -> None:
        self.queries = self.add_weight(
            name="queries", shape=(channels, self.num_tokens), initializer="glorot_uniform"
        )

    def _tokenize(self, values: Any, mask: Any, training: bool | None) -> tuple[Any, Any]:
        # The logits come from the normalised positions, and so do the sums.
        return super()._tokenize(self.norm(values), mask, training)

    def _attention_weights(self, values: Any, mask: Any, training: bool | None) -> Any:
        del training
        batch, *grid, channels = ops.shape(values)
        positions = math.prod(grid)  # not -1, which is unknown for an empty batch
        x = ops.reshape(values, (batch, positions, channels))  # (B', N, C)
        queries = self.queries[:, : self._num_given]
        queries = ops.cast(queries * channels**-0.5, x.dtype)
        return self._softmax_over_positions(ops.matmul(x, queries), mask)  # (B', N, S)

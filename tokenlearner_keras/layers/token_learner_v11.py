"""TokenLearner v1.1: tokens from an MLP and a softmax over the positions."""

import math
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.base_token_learner import WeightedSumTokenLearner
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_rate
from tokenlearner_keras.layers.mlp import MlpBlock


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class TokenLearnerV11(WeightedSumTokenLearner):
    """TokenLearner v1.1 in the reference's current form (since March 2022).

    An MLP gives every position a logit for each token; a softmax over the positions,
    independently for each token, turns them into weights; each token is the weighted sum of the
    raw, un-normalised input. Any grid shape works. Two earlier forms were also called v1.1
    (December 2021 and January 2022: grouped convolutions, a value projection, dropout on the
    output); they computed something else and their weights do not fit.

    Under `mixed_float16` the sums, and their gradients, are finite while they stay below
    65,504, the largest number of float16.

    Args:
        num_tokens: Number of learned tokens S.
        bottleneck_dim: Width of the MLP's hidden layer.
        dropout: Rate in [0, 1) on the MLP's hidden layer and on the logits before the softmax.
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
        training: Whether dropout is active.

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
        >>> layer = tk.TokenLearnerV11(num_tokens=8)
        >>> images = keras.random.normal((2, 14, 14, 192))
        >>> tokens, maps = layer(images, return_attention_maps=True)
        >>> tokens.shape, maps.shape
        ((2, 8, 192), (2, 8, 14, 14))

    Reference:
        scenic `projects/token_learner/model.py`, `TokenLearnerModuleV11`.
    """

    _saved_arguments = ("num_tokens", "bottleneck_dim", "dropout", "per_frame", "active_tokens")
    _built_attributes = ("_channels", "norm", "token_masking")

    def __init__(
        self,
        num_tokens: int = 8,
        bottleneck_dim: int = 64,
        dropout: float = 0.0,
        per_frame: bool = True,
        active_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_tokens, per_frame, active_tokens=active_tokens, **kwargs)
        self.bottleneck_dim = check_positive_integer(bottleneck_dim, "bottleneck_dim")
        self.dropout = check_rate(dropout, "dropout")

    def _build_attention(self, channels: int) -> None:
        self.token_masking = MlpBlock(
            self.bottleneck_dim,
            self.num_tokens,
            self.dropout,
            **self._part("token_masking"),
        )
        self.token_masking.build((None, None, channels))

    def _attention_weights(self, values: Any, mask: Any, training: bool | None) -> Any:
        batch, *grid, channels = ops.shape(values)
        positions = math.prod(grid)  # not -1, which is unknown for an empty batch
        x = ops.reshape(values, (batch, positions, channels))  # (B', N, C)
        logits = self.token_masking.after_norm(
            self.norm, x, training, self.active_tokens
        )  # (B', N, S)
        return self._softmax_over_positions(logits, mask)

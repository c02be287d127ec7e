"""TokenLearner by multi-head attention: tokens from learned queries."""

import math
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.common import MASKED_LOGIT
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_rate
from tokenlearner_keras.layers.common import is_half_precision
from tokenlearner_keras.layers.common import is_quantized


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class TokenLearnerMHA(BaseTokenLearner):
    """The multi-head tokenizer of Token Turing Machines.

    S learned queries, the same for every input, attend to all positions by multi-head
    dot-product attention; its output is the tokens. The input is not normalised and
    nothing is added to the output. Unlike in v1.0 and v1.1 a token is not a weighted sum
    of the raw input: values and output are projected. Any grid shape works.

    Under `mixed_float16` inputs beyond 65,504, the largest number of float16, overflow.

    Args:
        num_tokens: Number of learned tokens S.
        num_heads: Number of attention heads; must divide the channels.
        dropout: Rate in [0, 1) on the attention weights (the reference has none).
        per_frame: Whether each frame of a video gets its own tokens. False: S tokens for the
            whole clip, which attend to all T*N positions. They have no time axis: what they know
            of time comes from the positions that were added to the input.
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
        layer's compute dtype. The maps are the attention weights before dropout, averaged over
        the heads, float32 (float64 in a float64 layer): `(batch, num_tokens, positions)`, `(batch,
        num_tokens, height, width)` or `(batch, time, num_tokens, height, width)`; each sums to 1.
        With `per_frame=False` the tokens are `(batch, num_tokens, channels)`, the maps `(batch,
        num_tokens, time, height, width)` or `(batch, num_tokens, time, positions)`.

    Raises:
        ValueError: If an argument is out of range, the heads do not divide the channels, or the
            input has another rank or number of channels.

    Example:
        >>> layer = tk.TokenLearnerMHA(num_tokens=16, num_heads=8)
        >>> layer(keras.random.normal((2, 14, 14, 192))).shape
        (2, 16, 192)

    Reference:
        Ryoo et al. 2022, arXiv 2211.09119; scenic `projects/token_turing/model.py`,
        `TokenLearnerMHA`: queries normal with standard deviation 0.02, projections biased. Its
        kernels are LeCun-normal, here Glorot-uniform as in the encoder: for square kernels both
        have the standard deviation `channels ** -0.5`.
    """

    _saved_arguments = ("num_tokens", "num_heads", "dropout", "per_frame", "active_tokens")
    _built_attributes = ("_channels", "tokens", "attention")

    def __init__(
        self,
        num_tokens: int = 8,
        num_heads: int = 8,
        dropout: float = 0.0,
        per_frame: bool = True,
        active_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_tokens, per_frame, active_tokens=active_tokens, **kwargs)
        self.num_heads = check_positive_integer(num_heads, "num_heads")
        self.dropout = check_rate(dropout, "dropout")

    def _build_tokenizer(self, channels: int) -> None:
        self.tokens = self.add_weight(
            name="tokens",
            shape=(1, self.num_tokens, channels),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.attention = MultiHeadAttention(self.num_heads, self.dropout, **self._part("attention"))
        self.attention.build((None, self.num_tokens, channels))

    def _tokenize(self, values: Any, mask: Any, training: bool | None) -> tuple[Any, Any]:
        batch, *grid, channels = ops.shape(values)
        positions = math.prod(grid)  # not -1, which is unknown for an empty batch
        values = ops.reshape(values, (batch, positions, channels))  # (B', N, C)
        real = None if mask is None else ops.reshape(mask, (batch, positions))  # (B', N)
        if self._folds_projections:
            tokens, maps = self._attend_folded(values, real)
        else:
            queries = ops.cast(self._active_queries(), values.dtype)
            queries = ops.broadcast_to(queries, (batch, self._num_given, channels))
            tokens, weights = self.attention.attend(queries, values, real, training)
            maps = ops.mean(weights, axis=1)  # (B', S, N)
        if real is None:
            return tokens, maps
        maps = ops.where(ops.expand_dims(real, 1), maps, ops.zeros_like(maps))
        # The projections are biased: without any value the tokens would not be zero.
        any_real = ops.expand_dims(ops.any(real, axis=1), (1, 2))  # (B', 1, 1)
        return ops.where(any_real, tokens, ops.zeros_like(tokens)), maps

    @property
    def _folds_projections(self) -> bool:
        """Says whether `_attend_folded` gives the layer's result, with fewer products."""
        projections = (self.attention.key_layer, self.attention.value_layer)
        quantized = any(map(is_quantized, projections))
        exact = self.dropout == 0.0 and not is_half_precision(self.compute_dtype)
        fewer = self._num_given <= self.attention.head_dim  # columns than channels, in all heads
        return exact and not quantized and fewer

    def _attend_folded(self, values: Any, real: Any) -> tuple[Any, Any]:
        """Returns tokens and maps without a key or a value of every position.

        The queries are the same for every input, so the projection of the keys goes into them; and
        the weighted sums of the input are projected, not the input. That is `heads * S` columns for
        each position where the projections have C.
        """
        value_layer, sizes = self.attention.value_layer, (self.num_heads, self._num_given)
        batch, positions, channels = ops.shape(values)
        columns, offsets = self._folded_queries()  # (C, heads*S), (heads*S,)
        logits = ops.matmul(values, columns) + offsets  # (B', N, heads*S)
        if real is not None:
            logits = ops.where(ops.expand_dims(real, -1), logits, MASKED_LOGIT)
        weights = ops.transpose(ops.softmax(logits, axis=1), (0, 2, 1))  # (B', heads*S, N)
        sums = ops.matmul(weights, values)  # (B', heads*S, C)
        sums = ops.reshape(sums, (batch, *sizes, channels))
        attended = ops.einsum("bhsc,chd->bshd", sums, self._by_head(value_layer.kernel))
        attended = ops.reshape(attended, (batch, self._num_given, channels))
        tokens = self.attention.output_layer(attended + value_layer.bias)
        return tokens, ops.mean(ops.reshape(weights, (batch, *sizes, positions)), axis=1)

    def _folded_queries(self) -> tuple[Any, Any]:
        """Returns what the input is multiplied by for the logits, and what is added."""
        attention = self.attention
        queries = attention.query_layer(self._active_queries())[0] * attention.head_dim**-0.5
        queries = self._by_head(queries)  # (S, heads, dim)
        kernel = self._by_head(attention.key_layer.kernel)  # (C, heads, dim)
        columns = ops.reshape(ops.einsum("chd,shd->chs", kernel, queries), (self._channels, -1))
        bias = ops.reshape(attention.key_layer.bias, (self.num_heads, -1))
        return columns, ops.reshape(ops.einsum("hd,shd->hs", bias, queries), (-1,))

    def _active_queries(self) -> Any:
        """Returns the queries of the tokens that are given, (1, S, C)."""
        return self.tokens[:, : self._num_given]

    def _by_head(self, x: Any) -> Any:
        return ops.reshape(x, (-1, self.num_heads, self.attention.head_dim))

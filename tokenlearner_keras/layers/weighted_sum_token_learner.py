"""What TokenLearner v1.0 and v1.1 share: each token is a weighted sum of raw values."""

from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.constants import LAYER_NORM_EPSILON


class WeightedSumTokenLearner(BaseTokenLearner):
    """Base class: weights from the normalised input, values from the input itself.

    A subclass builds its sub-layers in `_build_attention` and returns the weight of
    every position for every token from `_attention_weights`. The sums run in float32
    under mixed precision.
    """

    def __init__(self, num_tokens: int, **kwargs: Any) -> None:
        super().__init__(num_tokens, **kwargs)
        self.autocast = False  # see `widened`

    def _build_tokenizer(self, channels: int) -> None:
        self.norm = keras.layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name="norm"
        )
        self.norm.build((None, None, channels))
        self._build_attention(channels)

    def _tokenize(self, values: Any, mask: Any, training: bool | None) -> tuple[Any, Any]:
        weights = self._attention_weights(values, mask, training)  # (B', N, S) float32
        if mask is not None:
            flat_mask = ops.reshape(mask, (*ops.shape(weights)[:2], 1))  # (B', N, 1)
            weights = ops.where(flat_mask, weights, ops.zeros_like(weights))
        maps = ops.transpose(weights, (0, 2, 1))  # (B', S, N)
        return self._pool(maps, values, mask), maps

    def _pool(self, maps: Any, values: Any, mask: Any) -> Any:
        """Sums the values weighted by the maps: one matmul, never (B', S, N, C)."""
        batch, _, positions = ops.shape(maps)
        values = ops.reshape(values, (batch, positions, self._channels))  # (B', N, C)
        tokens = ops.matmul(maps, ops.cast(values, maps.dtype))
        return self._scale(tokens, maps, mask)

    def _scale(self, tokens: Any, maps: Any, mask: Any) -> Any:
        """Hook for poolings other than the plain sum."""
        del maps, mask
        return tokens

    def _build_attention(self, channels: int) -> None:
        raise NotImplementedError

    def _attention_weights(self, values: Any, mask: Any, training: bool | None) -> Any:
        """Returns weights (B', N, S) in `_accumulation_dtype` for (B', *grid, C)."""
        raise NotImplementedError

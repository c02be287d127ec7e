"""Token merging in the manner of ToMe (Bolya et al. 2022, arXiv 2210.09461, section 3)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="benchmarks")
class TokenMerging(keras.layers.Layer):
    """Merges the most similar tokens by bipartite soft matching.

    Every other token looks for the most similar one among the rest; the pairs with the highest
    similarity become their mean. Unlike in the paper it stands between blocks, so it compares
    tokens instead of attention keys, and neither mean nor attention knows how many tokens have
    gone into one before.

    Args:
        count: Tokens that go away.
        **kwargs: Keyword arguments of `keras.layers.Layer`.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count

    def call(self, x: Any) -> Any:
        sources, targets = x[:, ::2], x[:, 1::2]  # (B, N/2, C) each
        similarity = ops.matmul(_unit(sources), ops.transpose(_unit(targets), (0, 2, 1)))
        order = ops.argsort(-ops.max(similarity, axis=-1), axis=-1)  # (B, N/2)
        merged = ops.expand_dims(order[:, : self.count], -1)  # (B, count, 1)
        kept = ops.expand_dims(order[:, self.count :], -1)
        nearest = ops.expand_dims(ops.argmax(similarity, axis=-1), -1)  # (B, N/2, 1)
        goals = ops.take_along_axis(nearest, merged, axis=1)[..., 0]  # (B, count)
        shares = ops.one_hot(goals, targets.shape[1], dtype=x.dtype)  # (B, count, N/2)
        shares = ops.transpose(shares, (0, 2, 1))
        total = targets + ops.matmul(shares, ops.take_along_axis(sources, merged, axis=1))
        number = 1 + ops.sum(shares, axis=-1, keepdims=True)
        return ops.concatenate([ops.take_along_axis(sources, kept, axis=1), total / number], axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


def _unit(x: Any) -> Any:
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-6)

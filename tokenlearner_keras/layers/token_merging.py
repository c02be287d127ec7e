"""TokenMerging: merges the tokens that are most alike, without weights and without training."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import accumulation_dtype
from tokenlearner_keras.layers.common import check_floats
from tokenlearner_keras.layers.common import check_integer
from tokenlearner_keras.layers.common import shapes_fit

# Tokens whose squares sum up to less have no direction.
_LEAST_SQUARES = 1e-12


def merged_lengths(length: int, target: int, mergings: int) -> tuple[int, ...]:
    """Returns how many tokens are left after each of some mergings, `target` after the last.

    A merging takes away at most half of its tokens, `n // 2` of n. Within that bound all take away
    as many as each other, as nearly as possible, the earlier ones more: 196 tokens become 8 in six
    mergings by way of 152, 108, 64, 32 and 16.

    Raises:
        ValueError: If so many mergings cannot leave `target` of `length` tokens.
    """
    least = -(-length // 2**mergings)
    if not least <= target <= length:
        raise ValueError(
            f"{mergings} mergings of {length} tokens leave {least} to {length} of them, as each "
            f"takes away at most half. Received: {target}. Merge from an earlier block on, or "
            "leave more tokens."
        )
    lengths = [target]
    # From the last merging, whose bound is the tightest, to the first, which takes the rest.
    for left in range(mergings, 1, -1):
        after = lengths[0]
        lengths.insert(0, after + min(after, (length - after) // left))
    return tuple(lengths)


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class TokenMerging(ConfiguredLayer):
    """Merges the most similar tokens in the manner of ToMe: no weights, no training.

    Each token at an even place looks for the one at an odd place that is most similar to it, by the
    cosine. In the `num_merged` most similar of these pairs the two become one token, their mean, at
    the place of the odd one; several even tokens may join the same odd one. All other tokens stay
    as they are, in their order.

    The layer stands between blocks, of a model that is trained or not. What it does of the paper:

    - The matching is the paper's. A mean counts each token by the number of tokens that went into
      it, if `sizes` are handed on from merging to merging; else every token counts as one.
    - Similar are tokens with similar values, not, as in the paper, with similar attention keys.
    - Attention does not know the sizes. In the paper it adds their logarithm to the logits of the
      keys (proportional attention); here a merged token weighs as much as any other.

    The means are a product with a matrix of zeros and ones, `(tokens - num_merged) x tokens`: for
    196 tokens a few percent of the work of a block. A TPU is quick at it and slow at gathers and
    scatters of rows, and it splits with the batch over chips. There, by JAX's default, a product
    rounds float32 tokens to bfloat16. Gradients flow through the means, not through the choice.

    Args:
        num_merged: How many tokens are merged into others, in each frame if there is a time axis:
            at most half of those that are not protected.
        num_protected: How many tokens in front, such as a class token, are never merged.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: `(batch, tokens, channels)`, or `(batch, time, tokens, channels)`, whose frames
            are merged one by one.
        sizes: Optional `(batch, [time,] tokens)`: how many tokens went into each one, as a merging
            before this one returns them. None: one each.
        return_sizes: If True, returns `(tokens, sizes)`.

    Returns:
        Tokens `(batch, [time,] tokens - num_merged, channels)` in the layer's compute dtype, and
        with `return_sizes` their sizes `(batch, [time,] tokens - num_merged)`, float32 (float64 in
        a float64 layer). Similarities and means are computed in that dtype, too.

    Raises:
        ValueError: If an argument is out of range, the input has another rank, or too few tokens.

    Example:
        >>> x = keras.random.normal((2, 196, 192))
        >>> x, sizes = tk.TokenMerging(num_merged=13)(x, return_sizes=True)
        >>> x, sizes = tk.TokenMerging(num_merged=13)(x, sizes=sizes, return_sizes=True)
        >>> x.shape
        (2, 170, 192)

    Reference:
        Bolya et al. 2022, arXiv 2210.09461, section 3.
    """

    _saved_arguments = ("num_merged", "num_protected")

    def __init__(self, num_merged: int, num_protected: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_merged = check_integer(num_merged, "num_merged", minimum=0)
        self.num_protected = check_integer(num_protected, "num_protected", minimum=0)
        # Half precision would round sizes beyond 256 and see ties between similar tokens.
        self.autocast = False

    def call(self, x: Any, sizes: Any = None, return_sizes: bool = False) -> Any:
        check_floats(x, self._owner)
        if sizes is not None:
            sizes = ops.convert_to_tensor(sizes)
        self._check_shapes(x.shape, None if sizes is None else sizes.shape)
        dtype = accumulation_dtype(self.compute_dtype)
        *leading, count, channels = ops.shape(x)
        tokens = ops.cast(ops.reshape(x, (-1, count, channels)), dtype)  # (B', N, C)
        if sizes is None:
            sizes = ops.ones_like(tokens[:, :, :1])
        sizes = ops.cast(ops.reshape(sizes, (-1, count, 1)), dtype)  # (B', N, 1)
        start = self.num_protected
        merged, merged_sizes = self._merge(tokens[:, start:], sizes[:, start:])
        if start:
            merged = ops.concatenate([tokens[:, :start], merged], axis=1)
            merged_sizes = ops.concatenate([sizes[:, :start], merged_sizes], axis=1)
        shape = (*leading, count - self.num_merged)
        merged = ops.cast(ops.reshape(merged, (*shape, channels)), self.compute_dtype)
        return (merged, ops.reshape(merged_sizes, shape)) if return_sizes else merged

    def _merge(self, x: Any, sizes: Any) -> tuple[Any, Any]:
        """Returns the tokens (B', N - num_merged, C) left of (B', N, C), and their sizes."""
        if not self.num_merged or x.shape[0] == 0:  # Keras takes no maximum of an empty batch
            return x[:, self.num_merged :], sizes[:, self.num_merged :]
        x, sizes = _even_then_odd(x), _even_then_odd(sizes)
        shares = self._shares(x)
        merged_sizes = ops.matmul(shares, sizes)
        return ops.matmul(shares, x * sizes) / merged_sizes, merged_sizes

    def merging_weights(self, x: Any, sizes: Any = None) -> Any:
        """Returns how much each token of the input is in each of the output.

        `(batch, [time,] tokens - num_merged, tokens)`, each row with the sum 1.
        """
        dtype = accumulation_dtype(self.compute_dtype)
        *leading, count, channels = ops.shape(x)
        x = ops.reshape(ops.cast(x, dtype), (-1, count, channels))  # (B', N, C)
        sizes = ops.ones_like(x[:, :, 0]) if sizes is None else sizes
        sizes = ops.reshape(ops.cast(sizes, dtype), (-1, 1, count))  # (B', 1, N)
        start = self.num_protected
        # Columns of `_shares` are the tokens at even places, then those at odd places.
        order = [*range(start, count, 2), *range(start + 1, count, 2)]
        shares = self._shares(_even_then_odd(x[:, start:]))
        kept = ops.broadcast_to(ops.eye(start, dtype=dtype), (len(x), start, start))
        top = ops.pad(kept, ((0, 0), (0, 0), (0, count - start)))
        rest = ops.pad(shares, ((0, 0), (0, 0), (start, 0)))
        rest = ops.take(rest, np.argsort([*range(start), *order]), axis=2)
        weights = ops.concatenate([top, rest], axis=1) * sizes
        weights = weights / ops.sum(weights, axis=-1, keepdims=True)
        return ops.reshape(weights, (*leading, count - self.num_merged, count))

    def _shares(self, x: Any) -> Any:
        """Returns (B', N - num_merged, N), 1 where a token goes into another, else 0.

        The tokens (B', N, C) and the columns are those at even places, then those at odd places.
        """
        places = ops.expand_dims(self._places(ops.stop_gradient(x)), 1)  # (B', 1, N)
        rows = ops.arange(ops.shape(x)[1] - self.num_merged, dtype="int32")
        return ops.cast(ops.equal(ops.expand_dims(rows, -1), places), x.dtype)

    def _places(self, x: Any) -> Any:
        """Returns the place in the output of each token: the even ones', then the odd ones'."""
        count = ops.shape(x)[1]
        num_odd = count // 2
        num_even = count - num_odd
        squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.maximum(squares, _LEAST_SQUARES))
        similarity = ops.matmul(x[:, :num_even], ops.transpose(x[:, num_even:], (0, 2, 1)))
        # Not max and min, which Keras writes such that torch.compile does not trace them.
        best = ops.amax(similarity, axis=-1, keepdims=True)  # (B', even, 1)
        is_merged = _among_largest(best[:, :, 0], self.num_merged)  # (B', even)
        # A token moves up by the number of merged ones before it.
        merged_so_far = ops.cumsum(ops.cast(is_merged, "int32"), axis=1)
        of_even = 2 * ops.arange(num_even, dtype="int32") - merged_so_far
        odd = ops.arange(num_odd, dtype="int32")
        of_odd = 2 * odd + 1 - merged_so_far[:, :num_odd]
        # A merged one goes to the place of the first of the most similar ones. (Keras' argmax has
        # operations on bits, which ONNX and LiteRT lack.)
        nearest = ops.where(similarity >= best, odd, num_odd)  # (B', even, odd)
        is_nearest = ops.equal(ops.amin(nearest, axis=-1, keepdims=True), odd)
        of_nearest = ops.where(is_nearest, ops.expand_dims(of_odd, 1), 0)
        of_even = ops.where(is_merged, ops.sum(of_nearest, axis=-1), of_even)
        return ops.concatenate([of_even, of_odd], axis=1)

    def compute_output_shape(
        self,
        x_shape: tuple[int | None, ...],
        sizes_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        self._check_shapes(x_shape, sizes_shape)
        *leading, count, channels = x_shape
        return (*leading, None if count is None else count - self.num_merged, channels)

    def compute_output_spec(self, x: Any, sizes: Any = None, return_sizes: bool = False) -> Any:
        check_floats(x, self._owner)
        shape = self.compute_output_shape(x.shape, None if sizes is None else sizes.shape)
        tokens = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_sizes:
            return tokens
        return tokens, keras.KerasTensor(shape[:-1], dtype=accumulation_dtype(self.compute_dtype))

    def count_macs(self, x_shape: tuple[int, ...], *more: Any) -> int:
        """Returns the multiply-accumulates of an input, as `tk.count_macs` asks for them."""
        if not self.num_merged:
            return 0
        *frames, tokens, channels = x_shape
        tokens -= self.num_protected
        similarity = (tokens // 2) * (tokens - tokens // 2) * channels
        # The sizes are one more channel.
        means = (tokens - self.num_merged) * tokens * (channels + 1)
        return math.prod(frames) * (similarity + means)

    def _check_shapes(self, shape: Any, sizes_shape: Any) -> None:
        shape = tuple(shape)
        if len(shape) not in (3, 4):
            raise ValueError(
                f"{self._owner} expects tokens (batch, tokens, channels) or, to merge within each "
                f"frame, (batch, time, tokens, channels). Received shape {shape}."
            )
        count = shape[-2]
        most = None if count is None else max(0, count - self.num_protected) // 2
        if most is not None and self.num_merged > most:
            raise ValueError(
                f"{self._owner} merges num_merged={self.num_merged} tokens into others: at most "
                f"half of those that are not protected, here {most}. Received shape {shape}, "
                f"num_protected={self.num_protected}. Take a smaller num_merged."
            )
        if sizes_shape is not None and not shapes_fit(tuple(sizes_shape), shape[:-1]):
            raise ValueError(
                f"{self._owner} expects a size for each token, {shape[:-1]}. Received sizes of "
                f"shape {tuple(sizes_shape)}. Take those that the merging before returns."
            )

    @property
    def _owner(self) -> str:
        return f"TokenMerging '{self.name}'"


def _even_then_odd(x: Any) -> Any:
    """Returns the tokens at even places, then those at odd places, so that both are slices."""
    return ops.concatenate([x[:, ::2], x[:, 1::2]], axis=1)


def _among_largest(values: Any, number: int) -> Any:
    """Returns which of the values (B, N) are the `number` largest, of equals the first ones.

    All are compared with all, which is little beside the product that gives the similarities.
    Sorting is slow on a TPU.
    """
    mine, other = ops.expand_dims(values, 2), ops.expand_dims(values, 1)  # (B, N, 1), (B, 1, N)
    place = ops.arange(ops.shape(values)[1], dtype="int32")
    is_earlier = ops.expand_dims(place, 0) < ops.expand_dims(place, 1)  # (N, N)
    is_before = (other > mine) | (ops.equal(other, mine) & is_earlier)  # (B, N, N)
    return ops.sum(ops.cast(is_before, "int32"), axis=-1) < number

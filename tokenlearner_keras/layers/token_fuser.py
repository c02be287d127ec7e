"""TokenFuser: puts learned tokens back onto the positions they came from."""

import math
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import accumulation_dtype
from tokenlearner_keras.layers.common import check_channels_last
from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_floats
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_rate
from tokenlearner_keras.layers.common import is_quantized
from tokenlearner_keras.layers.common import layer_norm
from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.layers.common import widened
from tokenlearner_keras.layers.mlp import MlpBlock
from tokenlearner_keras.layers.mlp import first_outputs


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class TokenFuser(ConfiguredLayer):
    """Mixes tokens and spreads them over the positions of the original input.

    The tokens are mixed by a zero-initialised Dense layer over the token axis, then each position
    receives a sigmoid-weighted sum of them; the weights come from the normalised original. There is
    **no residual inside**: add the original outside, as the reference's encoder does. At
    initialisation the output is exactly zero, so a residual block starts as the identity.

    Args:
        bottleneck_dim: Hidden width of the mask MLP. None gives the paper's linear mask: one Dense
            without hidden layer and without bias.
        use_normalization: LayerNorm before and after the mixing ("needed when using sum pooling",
            says the reference).
        dropout: Rate in [0, 1) in the mask MLP and on the output.
        mixing: `"frame"` mixes the tokens of each frame (the reference); `"video"` mixes all tokens
            of all frames (the paper's S·T x S·T matrix), for tokens of rank 4.
        num_tokens: Tokens (of a frame) that the weights are for. Where there are fewer, the first
            rows and columns are used; see `tk.set_num_tokens`. None: those of the input.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        tokens: `(batch, num_tokens, channels)`, or `(batch, time, num_tokens, channels)` for video:
            the tokens after the transformer block.
        original: The input of the matching TokenLearner: `(batch, positions, channels)` or
            `(batch, height, width, channels)`; for tokens of rank 4 with the time axis in second
            place. Tokens of rank 3 that were learned from a whole clip (`per_frame=False`) go to
            all its positions, `(batch, time, positions, channels)` or `(batch, time, height, width,
            channels)`.
        training: Whether dropout is active.

    Returns:
        A tensor of `original`'s shape, whatever its rank, in the compute dtype.

    Raises:
        ValueError: If an argument is out of range, or the two inputs do not fit.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, section 3 (linear mask, no bias); scenic
        `projects/token_learner/model.py`, `TokenFuser` (MLP mask, since March 2022).
    """

    _saved_arguments = ("bottleneck_dim", "use_normalization", "dropout", "mixing", "num_tokens")
    _built_attributes = (
        "mix_norm1",
        "mix_norm2",
        "mixing_layer",
        "original_norm",
        "token_masking",
        "output_dropout",
    )

    def __init__(
        self,
        bottleneck_dim: int | None = 64,
        use_normalization: bool = True,
        dropout: float = 0.0,
        mixing: str = "frame",
        num_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bottleneck_dim = optional(check_positive_integer, bottleneck_dim, "bottleneck_dim")
        self.use_normalization = bool(use_normalization)
        self.dropout = check_rate(dropout, "dropout")
        self.mixing = check_choice(mixing, ("frame", "video"), "mixing")
        self.num_tokens = optional(check_positive_integer, num_tokens, "num_tokens")
        self.supports_masking = True
        self.autocast = False  # see `widened`

    def build(
        self,
        tokens_shape: tuple[int | None, ...],
        original_shape: tuple[int | None, ...],
    ) -> None:
        self._check_shapes(tokens_shape, original_shape)
        num_tokens, channels = self.num_tokens or tokens_shape[-2], tokens_shape[-1]
        mixed = math.prod((*self._mixed_axes(tokens_shape)[:-1], num_tokens))
        if self.use_normalization:
            self.mix_norm1 = layer_norm(self, "mix_norm1", channels)
            self.mix_norm2 = layer_norm(self, "mix_norm2", channels)
        self.mixing_layer = keras.layers.Dense(
            mixed, kernel_initializer="zeros", **self._part("mixing")
        )
        self.mixing_layer.build((None, channels, mixed))
        self.original_norm = layer_norm(self, "original_norm", channels)
        self.token_masking = self._mask_layer(num_tokens)
        self.token_masking.build((None, None, channels))
        self.output_dropout = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="output_dropout"
        )

    def _mask_layer(self, num_tokens: int | None) -> keras.layers.Layer:
        if self.bottleneck_dim is not None:
            return MlpBlock(
                self.bottleneck_dim,
                num_tokens,
                self.dropout,
                **self._part("token_masking"),
            )
        return keras.layers.Dense(num_tokens, use_bias=False, **self._part("token_masking"))

    def call(self, tokens: Any, original: Any, training: bool | None = None) -> Any:
        self._check_shapes(tokens.shape, original.shape)
        self._check_dtypes(tokens, original)
        tokens, original = (widened(x, self.compute_dtype) for x in (tokens, original))
        mixed = self._mix(tokens)  # (B[, T], S, C)
        # (B[, T], N, S)
        weights = self._mask(original, tokens.shape[-2], len(tokens.shape) - 2, training)
        fused = ops.matmul(weights, ops.cast(mixed, weights.dtype))  # (B[, T], N, C)
        fused = ops.reshape(ops.cast(fused, self.compute_dtype), ops.shape(original))
        return self.output_dropout(fused, training=training)

    def mask_weights(self, tokens: Any, original: Any) -> Any:
        """Returns the weight of each mixed token at each position, `(batch, [time,] N, S)`."""
        original = widened(original, self.compute_dtype)
        return self._mask(original, tokens.shape[-2], len(tokens.shape) - 2, training=False)

    def mixing_matrix(self, tokens_shape: tuple[int | None, ...]) -> Any:
        """Returns the weight of each token, a column, in each mixed token, a row."""
        size = math.prod(self._mixed_axes(tokens_shape))
        # By what the layer does: its kernel may be quantised.
        inputs = ops.concatenate([ops.eye(size), ops.zeros((1, size))], axis=0)
        outputs = ops.cast(self.mixing_layer(inputs), "float32")
        return ops.transpose(outputs[:-1] - outputs[-1:])

    def _mix(self, tokens: Any) -> Any:
        """Returns the mixed tokens, in the shape of the tokens."""
        axes = self._mixed_axes(tokens.shape)
        x = ops.reshape(tokens, (-1, math.prod(axes), tokens.shape[-1]))  # (B', S', C)
        if self.use_normalization:
            x = self.mix_norm1(x)
        x = self._mixed(ops.transpose(x, (0, 2, 1)), axes)  # (B', C, S')
        x = ops.transpose(x, (0, 2, 1))  # (B', S', C)
        if self.use_normalization:
            x = self.mix_norm2(x)
        return ops.reshape(x, ops.shape(tokens))  # (B[, T], S, C)

    def _mixed(self, x: Any, axes: tuple[int, ...]) -> Any:
        """Returns `x` (B', C, S') mixed, by a part of the matrix where tokens are left out."""
        layer = self.mixing_layer
        full = (*axes[:-1], self.num_tokens or axes[-1])
        if axes == full:
            return layer(x)
        sizes = (math.prod(full[:-1]), full[-1])  # (T or 1, S)
        if is_quantized(layer):
            # Only the layer itself can use its matrix: it gets zeros for the tokens left out.
            batch, channels = ops.shape(x)[:2]
            x = ops.reshape(x, (batch, channels, sizes[0], axes[-1]))
            x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, full[-1] - axes[-1])))
            x = ops.reshape(
                layer(ops.reshape(x, (batch, channels, math.prod(full)))), (batch, channels, *sizes)
            )
            return ops.reshape(x[..., : axes[-1]], (batch, channels, math.prod(axes)))
        kernel = ops.reshape(layer.kernel, (*sizes, *sizes))
        kernel = ops.reshape(kernel[:, : axes[-1], :, : axes[-1]], (x.shape[-1], x.shape[-1]))
        bias = ops.reshape(ops.reshape(layer.bias, sizes)[:, : axes[-1]], (-1,))
        return ops.matmul(x, ops.cast(kernel, x.dtype)) + ops.cast(bias, x.dtype)

    def _mask(self, original: Any, num_tokens: int, num_leading: int, training: bool | None) -> Any:
        """Returns the weight of each token at each position, (B[, T], N, S)."""
        # The batch (and time) is the original's own, so that tokens of another batch fail.
        shape = ops.shape(original)
        positions = math.prod(shape[num_leading:-1])  # not -1, for empty batches
        x = ops.reshape(original, (*shape[:num_leading], positions, shape[-1]))  # (B[, T], N, C)
        count = None if self.num_tokens in (None, num_tokens) else num_tokens
        if self.bottleneck_dim is None:
            logits = first_outputs(self.token_masking, self.original_norm(x), count)
        else:
            logits = self.token_masking.after_norm(self.original_norm, x, training, count)
        return ops.sigmoid(ops.cast(logits, accumulation_dtype(self.compute_dtype)))

    def _mixed_axes(self, tokens_shape: Any) -> tuple[Any, ...]:
        """Returns the sizes of the axes that the mixing matrix runs over."""
        if self.mixing == "video" and len(tokens_shape) == 4:
            return tuple(tokens_shape[1:3])
        return (tokens_shape[-2],)

    def _check_shapes(self, tokens_shape: Any, original_shape: Any) -> None:
        tokens_shape, original_shape = tuple(tokens_shape), tuple(original_shape)
        received = f"Received tokens {tokens_shape} and original {original_shape}."
        owner = f"TokenFuser '{self.name}'"
        if len(tokens_shape) not in (3, 4) or len(original_shape) < len(tokens_shape):
            raise ValueError(
                f"{owner} expects tokens (batch, [time,] num_tokens, channels) and the "
                "original (batch, [time,] positions, channels) or (batch, [time,] "
                f"height, width, channels). {received}"
            )
        check_channels_last(len(original_shape), owner)
        leading = len(tokens_shape) - 2
        pairs = zip(tokens_shape[:leading], original_shape[:leading], strict=True)
        known = all(a == b for a, b in pairs if a is not None and b is not None)
        if not known or tokens_shape[-1] != original_shape[-1] or tokens_shape[-1] is None:
            raise ValueError(
                f"{owner} expects tokens and original with the same batch (and time) "
                f"and the same, known number of channels. {received}"
            )
        mixed_axes = self._mixed_axes(tokens_shape)
        if None in mixed_axes:
            raise ValueError(
                f"{owner} mixes over a token axis of fixed size; the sizes here are "
                f"{mixed_axes}. {received} Give the input a fixed number of tokens"
                + (" and frames." if self.mixing == "video" else ".")
            )
        if self.num_tokens is not None and mixed_axes[-1] > self.num_tokens:
            raise ValueError(
                f"{owner} has weights for num_tokens={self.num_tokens}. {received} Give it at most "
                "so many tokens, or leave num_tokens out."
            )

    def _check_dtypes(self, tokens: Any, original: Any) -> None:
        for x in (tokens, original):
            check_floats(x, f"TokenFuser '{self.name}'")

    def compute_output_spec(self, tokens: Any, original: Any, training: bool | None = None) -> Any:
        self._check_dtypes(tokens, original)
        return super().compute_output_spec(tokens, original, training=training)

    def compute_output_shape(
        self,
        tokens_shape: tuple[int | None, ...],
        original_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        self._check_shapes(tokens_shape, original_shape)
        return tuple(original_shape)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The mask of the tokens says nothing about the original's positions."""
        del inputs, previous_mask

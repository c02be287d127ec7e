"""The base of all TokenLearner layers: shapes, masks and attention maps."""

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
from keras import ops

from tokenlearner_keras.layers.common import MASKED_LOGIT
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import accumulation_dtype
from tokenlearner_keras.layers.common import check_channels_last
from tokenlearner_keras.layers.common import check_flag
from tokenlearner_keras.layers.common import check_floats
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import layer_norm
from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.layers.common import shapes_fit
from tokenlearner_keras.layers.common import widened

Dimension = Any  # An int, None (unknown, symbolic) or a scalar tensor (unknown, run time)


class PositionShape(NamedTuple):
    """An input shape split into what a tokenizer needs."""

    leading: tuple[Dimension, ...]  # (B,), or (B, T) where each frame gets its own tokens
    grid: tuple[Dimension, ...]  # (N,) or (H, W); of a clip taken together (T, N) or (T, H, W)
    channels: Dimension


def _split_shape(shape: Sequence[Dimension], owner: str, per_frame: bool) -> PositionShape:
    """Splits an input's shape; raises ValueError unless the rank is 3, 4 or 5, channels known."""
    dimensions = tuple(shape)
    rank = len(dimensions)
    if rank not in (3, 4, 5):
        of_rank_4 = "height, width" if per_frame else "time, positions"
        raise ValueError(
            f"{owner} expects an input of rank 3 (batch, positions, channels), 4 (batch, "
            f"{of_rank_4}, channels) or 5 (batch, time, height, width, channels). Received shape "
            f"{dimensions} of rank {rank}. Reshape the input, channels last."
        )
    if dimensions[-1] is None:
        raise ValueError(
            f"{owner} needs to know the number of channels. Received shape {dimensions}, whose "
            "last dimension is None. Give the input a fixed last dimension."
        )
    num_leading = 2 if per_frame and rank == 5 else 1
    return PositionShape(dimensions[:num_leading], dimensions[num_leading:-1], dimensions[-1])


def _check_mask(
    mask_shape: Sequence[Dimension], shape: PositionShape, owner: str, per_frame: bool
) -> None:
    """Raises ValueError unless a mask has the input's shape without its channels.

    Without `per_frame` it may also be one of whole frames, (B, T).
    """
    expected = (*shape.leading, *shape.grid)
    allowed = [expected]
    if not per_frame and len(expected) > 2:
        allowed.append(expected[:2])
    received = tuple(mask_shape)
    if not any(shapes_fit(received, each) for each in allowed):
        listed = " or, for whole frames, ".join(map(str, allowed))
        raise ValueError(
            f"{owner} expects a mask with the input's shape without its channels, {listed}, True "
            f"where a position is real. Received a mask of shape {received}."
        )


def _of_positions(mask: Any, shape: PositionShape) -> Any:
    """Returns a mask of whole frames, (B, T), as one of their positions; any other as it is."""
    dimensions = (*shape.leading, *shape.grid)
    missing = len(dimensions) - len(mask.shape)
    if not missing:
        return mask
    mask = ops.reshape(mask, (*dimensions[:2], *[1] * missing))
    return ops.broadcast_to(mask, dimensions)


def _check_active_tokens(value: Any, num_tokens: int) -> int | None:
    """Returns None, or `value` as an int; raises ValueError unless it is in [1, num_tokens]."""
    value = optional(check_positive_integer, value, "active_tokens")
    if value is not None and value > num_tokens:
        raise ValueError(
            f"`active_tokens` must not exceed `num_tokens`. Received active_tokens={value} and "
            f"num_tokens={num_tokens}."
        )
    return value


class BaseTokenLearner(ConfiguredLayer):
    """Base class: positions in, a few learned tokens out.

    A subclass builds the weights of `num_tokens` tokens in `_build_tokenizer`, names what holds
    them in `_built_attributes`, and turns the positions of one frame, or of a whole clip, into the
    first `_num_given` tokens and maps in `_tokenize`. Everything else (ranks 3 to 5, unknown sizes,
    masks, shapes of tokens and maps) is done here once.
    """

    _saved_arguments: tuple[str, ...] = ("num_tokens", "per_frame", "active_tokens")

    def __init__(
        self,
        num_tokens: int,
        per_frame: bool = True,
        active_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_tokens = check_positive_integer(num_tokens, "num_tokens")
        self.active_tokens = _check_active_tokens(active_tokens, self.num_tokens)
        self.per_frame = check_flag(per_frame, "per_frame")
        self.supports_masking = True
        self._channels: int | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = _split_shape(input_shape, self._owner, self.per_frame)
        self._channels = shape.channels
        self._build_tokenizer(shape.channels)

    def call(
        self,
        x: Any,
        mask: Any = None,
        return_attention_maps: bool = False,
        training: bool | None = None,
    ) -> Any:
        check_floats(x, self._owner)
        if mask is not None:
            mask = ops.convert_to_tensor(mask, dtype="bool")
        shape = self._checked_shape(ops.shape(x), mask)
        if mask is not None:
            mask = _of_positions(mask, shape)
            # `where`, not a product: a NaN in the padding must not get through.
            x = ops.where(ops.expand_dims(mask, -1), x, ops.zeros_like(x))
            mask = ops.reshape(mask, (-1, *shape.grid))  # (B', *grid)
        x = widened(x, self.compute_dtype)
        values = ops.reshape(x, (-1, *shape.grid, shape.channels))  # (B', *grid, C)
        # (B', S, C) and (B', S, N)
        tokens, maps = self._tokenize(values, mask, training)
        tokens = ops.cast(tokens, self.compute_dtype)
        tokens = ops.reshape(tokens, (*shape.leading, self._num_given, shape.channels))
        if not return_attention_maps:
            return tokens
        return tokens, ops.reshape(maps, (*shape.leading, self._num_given, *shape.grid))

    def _build_tokenizer(self, channels: int) -> None:
        raise NotImplementedError

    def _tokenize(self, values: Any, mask: Any, training: bool | None) -> tuple[Any, Any]:
        """Returns tokens (B', S, C) and maps (B', S, N) in `_accumulation_dtype`.

        S is `_num_given`. The values are (B', *grid, C): with `per_frame`, frames are folded into
        the batch; else a grid of three sizes, or of a time and positions, is a clip, and N all its
        positions. Values are zero where the mask (B', *grid) is False. There the maps must be zero,
        and tokens and maps if it is False everywhere.
        """
        raise NotImplementedError

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        shape = self._checked_shape(input_shape)
        return (*shape.leading, self._num_given, shape.channels)

    def compute_output_spec(
        self,
        x: Any,
        mask: Any = None,
        return_attention_maps: bool = False,
        training: bool | None = None,
    ) -> Any:
        del training
        check_floats(x, self._owner)
        shape = self._checked_shape(x.shape, mask)
        tokens = keras.KerasTensor(self.compute_output_shape(x.shape), dtype=self.compute_dtype)
        if not return_attention_maps:
            return tokens
        maps = keras.KerasTensor(
            (*shape.leading, self._num_given, *shape.grid),
            dtype=self._accumulation_dtype,
        )
        return tokens, maps

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Every learned token is real, so no mask is passed to the next layer."""
        del inputs, previous_mask

    def _checked_shape(self, shape: Any, mask: Any = None) -> PositionShape:
        split = _split_shape(shape, self._owner, self.per_frame)
        check_channels_last(len(shape), self._owner)
        if self._channels not in (None, split.channels):
            raise ValueError(
                f"{self._owner} was built for inputs with {self._channels} channels. Received "
                f"{split.channels} channels (leading {split.leading}, grid {split.grid}). Use a "
                "new layer for inputs of another width."
            )
        if mask is not None:
            _check_mask(mask.shape, split, self._owner, self.per_frame)
        return split

    @property
    def _num_given(self) -> int:
        """The tokens that the layer gives, the first of those it has weights for."""
        return self.active_tokens or self.num_tokens

    @property
    def _owner(self) -> str:
        return f"{type(self).__name__} '{self.name}'"

    @property
    def _accumulation_dtype(self) -> str:
        return accumulation_dtype(self.compute_dtype)


class WeightedSumTokenLearner(BaseTokenLearner):
    """Base class: weights from the normalised input, values from the input itself.

    A subclass builds its sub-layers in `_build_attention` and returns the weight of every position
    for every token from `_attention_weights`. The sums run in float32 under mixed precision.
    """

    def __init__(self, num_tokens: int, per_frame: bool = True, **kwargs: Any) -> None:
        super().__init__(num_tokens, per_frame, **kwargs)
        self.autocast = False  # see `widened`

    def _build_tokenizer(self, channels: int) -> None:
        self.norm = layer_norm(self, "norm", channels)
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

    def _softmax_over_positions(self, logits: Any, mask: Any) -> Any:
        """Returns weights in `_accumulation_dtype` for logits (B', N, S)."""
        logits = ops.cast(logits, self._accumulation_dtype)
        if mask is not None:
            real = ops.reshape(mask, (*ops.shape(logits)[:2], 1))  # (B', N, 1)
            logits = ops.where(real, logits, MASKED_LOGIT)
        return ops.softmax(logits, axis=1)

    def _build_attention(self, channels: int) -> None:
        raise NotImplementedError

    def _attention_weights(self, values: Any, mask: Any, training: bool | None) -> Any:
        """Returns weights (B', N, S) in `_accumulation_dtype` for (B', *grid, C)."""
        raise NotImplementedError

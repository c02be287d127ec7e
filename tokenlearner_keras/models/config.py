"""The configuration of a (video) Vision Transformer with or without TokenLearner."""

import dataclasses
import difflib
import functools
import itertools
import math
import numbers
import operator
import warnings
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Self

from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_finite
from tokenlearner_keras.layers.common import check_flag
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_rate
from tokenlearner_keras.layers.common import check_size
from tokenlearner_keras.layers.common import check_sizes
from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.layers.dot_product_attention import ATTENTION_FORMS
from tokenlearner_keras.layers.encoder_block import REMAT_POLICIES
from tokenlearner_keras.layers.patch_embedding import check_inflation
from tokenlearner_keras.layers.token_merging import merged_lengths

CLASSIFIERS = ("gap", "gmp", "gsp", "token", "map", None)
TOKEN_LEARNERS = (None, "v1.0", "v1.1", "mha", "patch_merger", "merging")
_POSITIVE = (
    "tubelet_size",
    "width",
    "depth",
    "num_heads",
    "mlp_dim",
    "num_tokens",
    "num_classes",
    "channels",
)
_OPTIONAL_POSITIVE = (
    "num_frames",
    "sample_frames",
    "bottleneck_dim",
    "representation_size",
    "fuser_bottleneck_dim",
)


@dataclasses.dataclass(frozen=True)
class BaseModelConfig:
    """The checks of fields and the dictionary form that the model configurations share."""

    def _check(self, check: Callable[[Any, str], Any], *names: str) -> None:
        """Replaces fields by what a check returns: plain Python values, which JSON can hold."""
        for name in names:
            object.__setattr__(self, name, check(getattr(self, name), name))

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields; `from_dict` gives an equal configuration."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration from a (JSON) dictionary.

        Raises:
            ValueError: If a key is unknown, with the nearest known one.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"{cls.__name__} has no field {name!r}.{hint} Known: {', '.join(known)}."
                )
        return cls(**values)


check_optional_positive = functools.partial(optional, check_positive_integer)


@dataclasses.dataclass(frozen=True)
class VisionTransformerConfig(BaseModelConfig):
    """What `tk.build_model` builds; the defaults are a plain ViT-B/16 at 224 pixels.

    Attributes:
        image_size: `(height, width)` of the input in pixels.
        num_frames: Frames of a video input. None means images.
        patch_size: `(height, width)` of a patch in pixels. Grids are floored.
        tubelet_size: Frames of a tubelet; 1 embeds every frame with a 2-D kernel. Frames
            that fill no tubelet are dropped, with a warning.
        tubelet_inflation: How a tubelet's kernel starts: `"average"` or
            `"central_frame"` inflates a 2-D kernel, None draws all frames at random.
        sample_frames: Takes that many frames, evenly spaced, before the embedding.
        width: Channels of a token.
        depth: Number of encoder blocks.
        num_heads: Attention heads; must divide `width`.
        mlp_dim: Hidden width of the encoder's MLP.
        token_learner: None; `"v1.0"`, `"v1.1"` or `"mha"`, the forms of TokenLearner (the last one
            with `num_heads` heads and `attention_dropout`); `"patch_merger"`; or `"merging"`, which
            learns nothing: a TokenMerging before every block from `token_learner_at` on, each
            taking away about as many tokens, until `num_tokens` are left (`num_merged`).
        num_tokens: Learned tokens per frame, or of the whole clip.
        per_frame: Whether a video's tokens are learned, or merged, frame by frame. False: from all
            frames together. The blocks after that see `num_tokens` tokens without a time axis.
        token_learner_at: The block, counted from 0, just before which TokenLearner
            sits: the number of full-size blocks. None takes half the depth.
        token_fuser: Whether every block from `token_learner_at` on is wrapped in its
            own TokenLearner and TokenFuser, which restores the positions.
        bottleneck_dim: Hidden width of TokenLearner v1.1's MLP.
        classifier: `"gap"` mean, `"gmp"` maximum, `"gsp"` sum over the tokens,
            `"token"` a class token, `"map"` attention pooling, None: no head, the
            model returns the tokens.
        representation_size: Width of a Dense + tanh before the logits. None: no such
            layer.
        num_classes: Number of logits.
        dropout: Rate in [0, 1) after the position table, in the encoder, in
            TokenLearner v1.1 and in TokenFuser.
        attention_dropout: Rate in [0, 1) on the attention weights.
        stochastic_depth: Rate in [0, 1) of the last block; it grows linearly from 0.
        head_bias: Initial value of the logits' biases.
        token_learner_pooling: v1.0: `"sum"` or `"mean"`.
        fuser_bottleneck_dim: Hidden width of TokenFuser's mask. None: the paper's
            linear mask.
        fuser_mixing: `"frame"` (the reference) or `"video"` (the paper).
        pooling: Baselines: `((block, grid), ...)`, average pooling to a grid (an
            integer or `(height, width)`) before that block.
        remat: Whether the encoder blocks compute their activations a second time in the
            backward pass instead of keeping them, less memory and more time; or
            `"all_but_attention"`, which keeps what the TPU's attention kernel returns on JAX.
        attention: `"auto"` computes attention in the form that is best for backend and sizes,
            `"plain"` by the matrix of all weights, `"fused"` by a TPU's kernel also for few tokens.
        channels: Channels of the input: 3 of RGB, 1 of grey images, or any other number.
        elastic_tokens: Numbers of learned tokens that training changes between, drawn for each
            step, such as `(4, 8, 16)`; the largest must be `num_tokens`. The model that is built is
            the same: `tk.set_num_tokens` makes smaller ones of it. (): always all.

    Raises:
        ValueError: If a value is out of range or two values do not fit, with the
            value and the range.

    Reference:
        scenic `projects/token_learner/model.py`, `TokenLearnerViT`.
    """

    image_size: tuple[int, int] = (224, 224)
    num_frames: int | None = None
    patch_size: tuple[int, int] = (16, 16)
    tubelet_size: int = 1
    sample_frames: int | None = None
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    token_learner: str | None = None
    num_tokens: int = 8
    token_learner_at: int | None = None
    token_fuser: bool = False
    bottleneck_dim: int = 64
    classifier: str | None = "gap"
    representation_size: int | None = None
    num_classes: int = 1000
    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    head_bias: float = 0.0
    token_learner_pooling: str = "sum"
    fuser_bottleneck_dim: int | None = 64
    fuser_mixing: str = "frame"
    pooling: tuple[tuple[int, tuple[int, int]], ...] = ()
    tubelet_inflation: str | None = None
    remat: bool | str = False
    attention: str = "auto"
    per_frame: bool = True
    channels: int = 3
    elastic_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._check(check_size, "image_size", "patch_size")
        self._check(_check_pooling_pairs, "pooling")
        self._check(_check_tokens, "elastic_tokens")
        self._check(check_positive_integer, *_POSITIVE)
        self._check(check_optional_positive, *_OPTIONAL_POSITIVE)
        self._check(check_rate, "dropout", "attention_dropout", "stochastic_depth")
        self._check(check_flag, "token_fuser", "per_frame")
        self._check(check_finite, "head_bias")
        check_choice(self.token_learner, TOKEN_LEARNERS, "token_learner")
        check_choice(self.classifier, CLASSIFIERS, "classifier")
        check_choice(self.token_learner_pooling, ("sum", "mean"), "token_learner_pooling")
        check_choice(self.fuser_mixing, ("frame", "video"), "fuser_mixing")
        check_choice(self.remat, REMAT_POLICIES, "remat")
        check_choice(self.attention, ATTENTION_FORMS, "attention")
        if self.width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide `width`. Received num_heads={self.num_heads}"
                f" and width={self.width}."
            )
        self._check_token_learner()
        self._check_video()
        self._check_grid()
        self._check_pooling()
        self._check_merging()
        self._check_elastic()

    def _check_token_learner(self) -> None:
        at = self.token_learner_at
        if self.token_learner is None:
            if at is not None or self.token_fuser or not self.per_frame:
                raise ValueError(
                    "`token_learner_at`, `token_fuser` and `per_frame=False` need a TokenLearner: "
                    "set token_learner, such as to 'v1.1'. Received token_learner=None, "
                    f"token_learner_at={at}, token_fuser={self.token_fuser}, "
                    f"per_frame={self.per_frame}."
                )
            return
        if self.token_fuser and self.token_learner == "merging":
            raise ValueError(
                "`token_fuser` puts learned tokens back onto their positions; merged tokens have "
                "none. Received token_fuser=True, token_learner='merging'. Leave out one of them."
            )
        if at is None:
            return
        whole = isinstance(at, numbers.Integral) and not isinstance(at, bool)
        if not whole or not 0 <= at < self.depth:
            raise ValueError(
                "`token_learner_at` is the 0-based block that TokenLearner precedes: it must be "
                f"in [0, {self.depth}) for depth={self.depth}. Received: {at!r}."
            )
        object.__setattr__(self, "token_learner_at", int(at))

    def _check_video(self) -> None:
        if self.num_frames is None:
            received = {
                "sample_frames": self.sample_frames,
                "tubelet_size": self.tubelet_size,
                "tubelet_inflation": self.tubelet_inflation,
                "per_frame": self.per_frame,
            }
            if received != {**dict.fromkeys(received), "tubelet_size": 1, "per_frame": True}:
                raise ValueError(
                    f"{', '.join(received)} are for videos: set num_frames. Received "
                    f"num_frames=None and {received}."
                )
            return
        check_inflation(self.tubelet_inflation, self.tubelet_size)
        if self.sample_frames is not None and self.sample_frames > self.num_frames:
            raise ValueError(
                "`sample_frames` must not exceed `num_frames`. Received sample_frames="
                f"{self.sample_frames} and num_frames={self.num_frames}."
            )
        if self._embedded_frames < self.tubelet_size:
            raise ValueError(
                f"A video needs at least tubelet_size={self.tubelet_size} frames. Received "
                f"num_frames={self.num_frames}, sample_frames={self.sample_frames}."
            )
        dropped = self._embedded_frames % self.tubelet_size
        if dropped:
            name = "num_frames" if self.sample_frames is None else "sample_frames"
            warnings.warn(
                f"{name}={self._embedded_frames} is not a multiple of tubelet_size="
                f"{self.tubelet_size}: the last {dropped} frames are dropped (time steps: "
                f"{self.num_time_steps}).",
                stacklevel=2,
            )

    def _check_grid(self) -> None:
        if 0 in self.grid_size:
            raise ValueError(
                f"`image_size` must hold at least one whole patch of `patch_size`="
                f"{self.patch_size} pixels. Received image_size={self.image_size}. Use larger "
                "images or smaller patches."
            )
        dropped = [
            size % patch for size, patch in zip(self.image_size, self.patch_size, strict=True)
        ]
        if any(dropped):
            warnings.warn(
                f"image_size={self.image_size} is not a multiple of patch_size="
                f"{self.patch_size}: the last {dropped[0]} rows and {dropped[1]} "
                f"columns of pixels are dropped (grid {self.grid_size}).",
                stacklevel=2,
            )

    def _check_pooling(self) -> None:
        height, width = self.grid_size
        last = self.token_learner_block if not self.token_fuser else None
        limit = self.depth if last is None else last + 1
        blocks = [block for block, _ in self.pooling]
        if blocks != sorted(set(blocks)) or not all(0 <= b < limit for b in blocks):
            raise ValueError(
                f"`pooling` needs increasing blocks in [0, {limit}), where the tokens still form a "
                f"grid. Received blocks {blocks} for depth={self.depth}, token_learner_at="
                f"{self.token_learner_block}."
            )
        for block, grid in self.pooling:
            if grid[0] > height or grid[1] > width:
                raise ValueError(
                    f"`pooling` before block {block} goes to a grid of {grid}, larger "
                    f"than the grid there, {(height, width)}."
                )
            height, width = grid

    def _check_merging(self) -> None:
        try:
            _ = self.num_merged
        except ValueError as error:
            raise ValueError(
                "`num_tokens` cannot be reached by merging before every block from "
                f"`token_learner_at`={self.token_learner_block} of depth={self.depth} on: {error}"
            ) from None

    def _check_elastic(self) -> None:
        tokens = self.elastic_tokens
        if tokens and self.token_learner in (None, "merging"):
            raise ValueError(
                "`elastic_tokens` needs learned tokens: set token_learner, such as to 'v1.1', or "
                f"leave it out. Received token_learner={self.token_learner!r}, elastic_tokens="
                f"{tokens}."
            )
        if tokens and tokens[-1] != self.num_tokens:
            raise ValueError(
                "The largest of `elastic_tokens` must be the model's `num_tokens`. Received "
                f"elastic_tokens={tokens}, num_tokens={self.num_tokens}. End with "
                f"{self.num_tokens}, or set num_tokens={tokens[-1]}."
            )

    @property
    def grid_size(self) -> tuple[int, int]:
        """`(height, width)` of the patch grid, floored."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def _embedded_frames(self) -> int:
        return self.sample_frames or self.num_frames or 1

    @property
    def num_time_steps(self) -> int | None:
        """Temporal positions after the embedding; None for images."""
        if self.num_frames is None:
            return None
        return self._embedded_frames // self.tubelet_size

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: `([time,] height, width, channels)`."""
        frames = () if self.num_frames is None else (self.num_frames,)
        return (*frames, *self.image_size, self.channels)

    @property
    def token_learner_block(self) -> int | None:
        """The block that TokenLearner precedes; None without TokenLearner."""
        if self.token_learner is None:
            return None
        return self.depth // 2 if self.token_learner_at is None else self.token_learner_at

    @property
    def num_merged(self) -> tuple[int, ...]:
        """Tokens merged before each block, of a frame with `per_frame`; () without merging."""
        first = self.token_learner_block
        if self.token_learner != "merging" or first is None:
            return ()
        # Pooling is over by then.
        grid = self.pooling[-1][1] if self.pooling else self.grid_size
        frames = 1 if self.per_frame else self.num_time_steps or 1
        positions = frames * math.prod(grid)
        lengths = merged_lengths(positions, self.num_tokens, self.depth - first)
        return tuple(a - b for a, b in itertools.pairwise((positions, *lengths)))


def _check_tokens(value: Any, name: str) -> tuple[int, ...]:
    """Returns different positive integers in ascending order."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"`{name}` must be integers, such as (4, 8, 16). Received: {value!r}.")
    tokens = check_sizes(value, name)
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"`{name}` must be different numbers. Received: {value!r}.")
    return tuple(sorted(tokens))


def _check_pooling_pairs(value: Any, name: str) -> tuple[tuple[int, tuple[int, int]], ...]:
    try:
        return tuple(
            (operator.index(block), check_size(grid, "pooling grid")) for block, grid in value
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must hold pairs (block, grid), such as ((9, 8), (18, 2)). "
            f"Received: {value!r} ({error})."
        ) from None

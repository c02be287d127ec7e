"""The configuration of the convolutional video models for Charades and AViD."""

import dataclasses
from typing import Any

from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_finite
from tokenlearner_keras.layers.common import check_flag
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import check_rate
from tokenlearner_keras.layers.common import check_size
from tokenlearner_keras.layers.common import check_sizes
from tokenlearner_keras.models.config import BaseModelConfig
from tokenlearner_keras.models.config import check_optional_positive

#: What each module of the paper's ablation does, in order, between the two 1x1x1 convolutions.
MODULES: dict[str, tuple[str, ...]] = {
    "conv2d_conv1d": ("conv2d", "conv1d"),
    "conv2d": ("conv2d",),
    "joint": ("space_time",),
    "conv2d_joint": ("conv2d", "space_time"),
    "conv2d_temporal": ("conv2d", "time"),
    "spatial_temporal": ("space", "time"),
    "conv2d_spatial_temporal": ("conv2d", "space", "time"),
    "token_learner": ("token_learner",),
    "conv2d_token_learner": ("conv2d", "token_learner"),
    "spatial_token_learner": ("space", "token_learner"),
}
_STAGES = ("widths", "inner_widths", "depths")
_POSITIVE = (
    "num_frames",
    "stem_width",
    "module_blocks",
    "num_tokens",
    "num_heads",
    "key_width",
    "num_classes",
    "channels",
)
_OPTIONAL_POSITIVE = ("fuser_bottleneck_dim", "representation_size")


@dataclasses.dataclass(frozen=True)
class X2Plus1DConfig(BaseModelConfig):
    """A convolutional model of `tk.build_model`; the defaults are the plain X(2+1)D-M.

    Attributes:
        image_size: `(height, width)` of the input in pixels. The weights do not depend on
            it: `tk.resize_model` gives the model for another size.
        num_frames: Frames of the input; time is never strided.
        stem_width: Channels after the first two convolutions.
        widths: Channels between the blocks, for each stage.
        inner_widths: Channels inside the blocks, for each stage.
        depths: Blocks of each stage; the first one halves height and width.
        module: What the last blocks do between their two 1x1x1 convolutions, a key of
            `MODULES`; all other blocks are `"conv2d_conv1d"`.
        module_blocks: How many blocks at the end of the last stage have that module; not
            its first one, which halves the grid.
        num_tokens: Learned tokens per frame.
        token_learner_pooling: `"mean"` (the paper's text) or `"sum"` (the reference).
        vector_attention: Whether the tokens attend with a head for each channel, the
            vector transformer; otherwise with `num_heads`.
        fuser_bottleneck_dim: Hidden width of TokenFuser's mask. None: the paper's
            linear mask.
        fuser_mixing: `"frame"` or `"video"`, whose weights depend on `num_frames`.
        num_heads: Heads of the attention over grid positions; must divide `key_width`
            and the last inner width.
        key_width: Channels of that attention's queries and keys.
        classifier: `"gap"`, the mean over all positions, or None: no head, the model
            returns the positions.
        representation_size: Width of the Dense + ReLU before the logits. None: no such
            layer.
        num_classes: Number of logits.
        dropout: Rate in [0, 1) before the logits.
        head_bias: Initial value of the logits' biases.
        batch_norm_momentum: Share in [0, 1) of the moving statistics that a step keeps.
        batch_norm_epsilon: Added to variances.
        remat: Whether training computes the activations inside the stem and each block a
            second time in the backward pass, to keep less; nothing else changes.
        channels: Channels of the input: 3 of RGB, 1 of grey videos, or any other number.

    Raises:
        ValueError: If a value is out of range or two values do not fit, with the
            value and the range.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, tables 9 to 12; Feichtenhofer 2020, arXiv
        2004.04730 (X3D-M: widths and depths).
    """

    image_size: tuple[int, int] = (224, 224)
    num_frames: int = 64
    stem_width: int = 24
    widths: tuple[int, ...] = (24, 48, 96, 128)
    inner_widths: tuple[int, ...] = (54, 108, 216, 432)
    depths: tuple[int, ...] = (3, 5, 11, 7)
    module: str = "conv2d_conv1d"
    module_blocks: int = 3
    num_tokens: int = 8
    token_learner_pooling: str = "mean"
    vector_attention: bool = True
    fuser_bottleneck_dim: int | None = None
    fuser_mixing: str = "frame"
    num_heads: int = 8
    key_width: int = 128
    classifier: str | None = "gap"
    representation_size: int | None = 2048
    num_classes: int = 1000
    dropout: float = 0.0
    head_bias: float = 0.0
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-5
    remat: bool = False
    channels: int = 3

    def __post_init__(self) -> None:
        self._check(check_size, "image_size")
        self._check(_check_stage_sizes, *_STAGES)
        self._check(check_positive_integer, *_POSITIVE)
        self._check(check_optional_positive, *_OPTIONAL_POSITIVE)
        self._check(check_rate, "dropout", "batch_norm_momentum")
        self._check(check_finite, "head_bias", "batch_norm_epsilon")
        check_choice(self.module, tuple(MODULES), "module")
        check_choice(self.token_learner_pooling, ("sum", "mean"), "token_learner_pooling")
        check_choice(self.fuser_mixing, ("frame", "video"), "fuser_mixing")
        check_choice(self.classifier, ("gap", None), "classifier")
        self._check(check_flag, "vector_attention", "remat")
        self._check_ranges()
        self._check_stages()

    def _check_ranges(self) -> None:
        if self.batch_norm_epsilon <= 0:
            raise ValueError(
                f"`batch_norm_epsilon` must be above 0. Received: {self.batch_norm_epsilon}."
            )
        for width in (self.key_width, self.inner_widths[-1]):
            if width % self.num_heads:
                raise ValueError(
                    "`num_heads` must divide `key_width` and the last of `inner_widths`. "
                    f"Received num_heads={self.num_heads}, key_width={self.key_width}, "
                    f"inner_widths={self.inner_widths}."
                )

    def _check_stages(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _STAGES}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"{', '.join(_STAGES)} must each have one number per stage. Received "
                f"{', '.join(f'{count} {name}' for name, count in lengths.items())}."
            )
        if not self.is_plain and self.module_blocks >= self.depths[-1]:
            raise ValueError(
                "`module_blocks` must be below the depth of the last stage, whose first block "
                f"halves the grid. Received module_blocks={self.module_blocks}, depths="
                f"{self.depths}."
            )

    @property
    def is_plain(self) -> bool:
        """Whether all blocks have the backbone's own module."""
        return self.module == "conv2d_conv1d"

    @property
    def grid_size(self) -> tuple[int, int]:
        """`(height, width)` of the grid in the last stage, rounded up."""
        stride = 2 ** (len(self.depths) + 1)
        return -(-self.image_size[0] // stride), -(-self.image_size[1] // stride)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: `(time, height, width, channels)`."""
        return (self.num_frames, *self.image_size, self.channels)


def _check_stage_sizes(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"`{name}` must hold one integer per stage. Received: {value!r}.")
    return check_sizes(value, name)

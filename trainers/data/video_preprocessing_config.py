"""How clips are taken from videos, cut, resized and augmented."""

from dataclasses import dataclass

from trainers.data.randaugment import check_randaugment
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

INTERPOLATIONS = ("bicubic", "bilinear")
SPATIAL_VIEWS = (1, 3)
VIEW_REDUCTIONS = ("logits", "probabilities", "max")
FRAME_ORDERS = ("natural", "repeated", "shuffled")


@dataclass(frozen=True)
class VideoPreprocessingConfig:
    """Settings of `train_clip`, `evaluation_clip` and `evaluation_views`.

    Args:
        image_size: height and width of every frame, in pixels.
        num_frames: of a clip.
        stride: distance of two frames of a clip in the video, in frames.
        min_resize: length of the shorter side of a video before it is cut to
            `image_size`, in pixels. Where the cut would not fit, frames are resized by
            just as much more as it needs.
        scale_jitter: smallest and largest factor by which a training clip is resized
            beyond `min_resize`; height and width have a factor each, drawn uniformly.
            None is off.
        flip: mirror half of the training clips, left and right. The labels follow where
            the source knows them of mirrored videos, as the built-in clips do; with any
            other source to be off where a class is a direction.
        color_jitter: share of the training clips whose colours are changed.
        color_drop: share of the training clips that are turned to grey.
        randaugment_layers: random operations on each training clip; 0 is off.
        randaugment_magnitude: strength of these operations, 0 to 30.
        interpolation: how frames are resized: "bicubic" or "bilinear".
        temporal_views: clips of a video that a test looks at, from its start to its end.
        spatial_views: windows of each temporal view, 1 (centre) or 3 (along the longer side).
        view_reduction: how a video's views become one answer: the mean of their
            "logits" or "probabilities", or the "max" of their logits.
        frame_order: "natural"; for control experiments also "repeated", the middle frame
            of a clip in all places, or "shuffled", the frames of a clip in random order.

    Raises:
        ConfigurationError: if a value is out of range.
    """

    image_size: tuple[int, int]
    num_frames: int
    stride: int = 2
    min_resize: int = 256
    scale_jitter: tuple[float, float] | None = (0.9, 1.33)
    flip: bool = True
    color_jitter: float = 0.0
    color_drop: float = 0.0
    randaugment_layers: int = 0
    randaugment_magnitude: float = 15.0
    interpolation: str = "bilinear"
    temporal_views: int = 4
    spatial_views: int = 3
    view_reduction: str = "logits"
    frame_order: str = "natural"

    @property
    def num_views(self) -> int:
        """The number of views of a video in a test."""
        return self.temporal_views * self.spatial_views

    def __post_init__(self) -> None:
        """Check every value."""
        # Configuration files give lists.
        object.__setattr__(self, "image_size", _pair("image_size", self.image_size))
        if any(side != int(side) or side < 3 for side in self.image_size):
            raise _wrong("image_size", "two whole numbers >= 3", self.image_size)
        for name in ("num_frames", "stride", "min_resize", "temporal_views"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                raise _wrong(name, "a whole number >= 1", value)
        if self.scale_jitter is not None:
            object.__setattr__(self, "scale_jitter", _pair("scale_jitter", self.scale_jitter))
            if not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
                raise _wrong("scale_jitter", "None or 0 < smallest <= largest", self.scale_jitter)
        for name in ("color_jitter", "color_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(name, "a probability, 0 to 1", getattr(self, name))
        check_randaugment(self.randaugment_layers, self.randaugment_magnitude, section="video")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                expected = f"one of {', '.join(map(str, choices))}"
                hint = did_you_mean(getattr(self, name), map(str, choices))
                raise _wrong(name, expected, getattr(self, name), hint)


_CHOICES: dict[str, tuple[object, ...]] = {
    "interpolation": INTERPOLATIONS,
    "spatial_views": SPATIAL_VIEWS,
    "view_reduction": VIEW_REDUCTIONS,
    "frame_order": FRAME_ORDERS,
}


def _pair(name: str, value: object) -> tuple[float, float]:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        if all(isinstance(each, (int, float)) for each in value):
            return (value[0], value[1])
    raise _wrong(name, "two numbers, such as (0.5, 1.0)", value)


def _wrong(name: str, expected: str, received: object, hint: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"video.{name}: expected {expected}, received {received!r}; correct the "
        f"configuration.{hint}"
    )

"""Checks the sections `augmentation`, `video` and `records`: reading and augmenting examples."""

from dataclasses import dataclass

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

CROPS = ("inception", "resize_small_crop", "pad", "none")
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class PreprocessingConfig:
    """Settings of `train_example` and `evaluation_example`.

    Args:
        image_size: height and width of every image, in pixels.
        crop: what a training example shows: "inception", "resize_small_crop", "pad" or "none".
            "inception": a random window of random area and aspect ratio, resized.
            "resize_small_crop": a random window of the shape of `image_size` and of
            `small_crop_fraction` of the largest one that fits, resized: the image
            resized a little larger, then cut at random.
            "pad": the resized image shifted by up to `padding` pixels, with its
            reflection at the border; cheap, for small images.
            "none": the whole image, resized.
        crop_area: smallest and largest share of the image in an inception crop.
        crop_aspect_ratio: smallest and largest width / height of an inception crop.
        crop_attempts: draws of an inception crop before the centre crop is taken.
        small_crop_fraction: share of the largest window, for "resize_small_crop".
        padding: largest shift of "pad", in pixels.
        flip: mirror half of the training examples, left and right.
        randaugment_layers: random operations on each training example; 0 is off.
        randaugment_magnitude: strength of these operations, 0 to 30.
        interpolation: how images are resized: "bicubic" or "bilinear".
        eval_crop_fraction: an evaluation example is the central window of the shape
            of `image_size` and of this share of the largest one that fits, resized;
            1.0 resizes the whole image, whatever its aspect ratio.
        exif_orientation: first turn every image as the EXIF tag of a camera says; set by
            `data.exif_orientation`.

    Raises:
        ConfigurationError: if a value is out of range.
    """

    image_size: tuple[int, int]
    crop: str = "inception"
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_attempts: int = 10
    small_crop_fraction: float = 0.875
    padding: int = 4
    flip: bool = True
    randaugment_layers: int = 0
    randaugment_magnitude: float = 15.0
    interpolation: str = "bicubic"
    eval_crop_fraction: float = 0.875
    exif_orientation: bool = False

    def __post_init__(self) -> None:
        for name in ("image_size", "crop_area", "crop_aspect_ratio"):
            # Configuration files give lists.
            object.__setattr__(self, name, _pair(f"augmentation.{name}", getattr(self, name)))
        _check_choice("augmentation.crop", self.crop, CROPS)
        _check_choice("augmentation.interpolation", self.interpolation, INTERPOLATIONS)
        if any(side != int(side) or side < 3 for side in self.image_size):
            raise _wrong("augmentation.image_size", "two whole numbers >= 3", self.image_size)
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise _wrong("augmentation.crop_area", "0 < smallest <= largest <= 1", self.crop_area)
        if not 0 < self.crop_aspect_ratio[0] <= self.crop_aspect_ratio[1]:
            raise _wrong(
                "augmentation.crop_aspect_ratio", "0 < smallest <= largest", self.crop_aspect_ratio
            )
        if self.crop_attempts < 1:
            raise _wrong("augmentation.crop_attempts", "1 or more", self.crop_attempts)
        for name in ("small_crop_fraction", "eval_crop_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise _wrong(f"augmentation.{name}", "more than 0, at most 1", getattr(self, name))
        if not 0 <= self.padding < min(self.image_size):
            expected = f"0 to {min(self.image_size) - 1}, less than image_size"
            raise _wrong("augmentation.padding", expected, self.padding)
        check_randaugment(self.randaugment_layers, self.randaugment_magnitude)


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
        """Returns the number of views of a video in a test."""
        return self.temporal_views * self.spatial_views

    def __post_init__(self) -> None:
        # Configuration files give lists.
        object.__setattr__(self, "image_size", _pair("video.image_size", self.image_size))
        if any(side != int(side) or side < 3 for side in self.image_size):
            raise _wrong("video.image_size", "two whole numbers >= 3", self.image_size)
        for name in ("num_frames", "stride", "min_resize", "temporal_views"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                raise _wrong(f"video.{name}", "a whole number >= 1", value)
        if self.scale_jitter is not None:
            object.__setattr__(self, "scale_jitter", _pair("video.scale_jitter", self.scale_jitter))
            if not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
                raise _wrong(
                    "video.scale_jitter", "None or 0 < smallest <= largest", self.scale_jitter
                )
        for name in ("color_jitter", "color_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(f"video.{name}", "a probability, 0 to 1", getattr(self, name))
        check_randaugment(self.randaugment_layers, self.randaugment_magnitude, section="video")
        for name, choices in _CHOICES.items():
            _check_choice(f"video.{name}", getattr(self, name), choices)


_CHOICES: dict[str, tuple[object, ...]] = {
    "interpolation": INTERPOLATIONS,
    "spatial_views": SPATIAL_VIEWS,
    "view_reduction": VIEW_REDUCTIONS,
    "frame_order": FRAME_ORDERS,
}


@dataclass(frozen=True)
class RecordsConfig:
    """The section `records` of a configuration: how `data.source=records` reads.

    Args:
        image_key: feature list with one encoded JPEG or PNG a frame.
        label_key: context feature with the number of the class, or of several.
        num_classes: number of classes; None takes it from `dataset.json`, which
            `trainers.make_video_records` writes, or else from the label map.
        multi_label: whether a video may have several labels, or none; a configuration
            says so as `data.multi_label`.
        recover: whether what can be read of a damaged file is; a configuration says so by
            `data.max_bad_examples` above 0.

    Raises:
        ConfigurationError: a value is out of range.
    """

    image_key: str = "image/encoded"
    label_key: str = "clip/label/index"
    num_classes: int | None = None
    multi_label: bool = False
    recover: bool = False

    def __post_init__(self) -> None:
        for name in ("image_key", "label_key"):
            if not getattr(self, name):
                raise ConfigurationError(
                    f"records.{name}: expected the name of a feature, received "
                    f"{getattr(self, name)!r}; leave it out for the usual one"
                )
        if self.num_classes is not None and self.num_classes < 1:
            raise ConfigurationError(
                f"records.num_classes: expected 1 or more, received {self.num_classes}; "
                "leave it out if the records come with a dataset.json or labels.txt"
            )


#: The magnitude at which every operation has full strength.
FULL_MAGNITUDE = 30.0


def check_randaugment(layers: int, magnitude: float, section: str = "augmentation") -> None:
    """Checks the keys of RandAugment in `section`; raises ConfigurationError if out of range."""
    if layers < 0:
        raise ConfigurationError(
            f"{section}.randaugment_layers: expected 0 (off) or more, received {layers}"
        )
    if not 0 <= magnitude <= FULL_MAGNITUDE:
        raise ConfigurationError(
            f"{section}.randaugment_magnitude: expected 0 to {FULL_MAGNITUDE:g}, received "
            f"{magnitude}; multiply by 3 if it comes from a scale of 0 to 10"
        )


def _pair(key: str, value: object) -> tuple[float, float]:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        if all(isinstance(each, (int, float)) for each in value):
            return (value[0], value[1])
    raise _wrong(key, "two numbers, such as (0.5, 1.0)", value)


def _check_choice(key: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        names = [str(choice) for choice in choices]
        raise _wrong(key, f"one of {', '.join(names)}", value, did_you_mean(value, names))


def _wrong(key: str, expected: str, received: object, hint: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"{key}: expected {expected}, received {received!r}; correct the configuration.{hint}"
    )

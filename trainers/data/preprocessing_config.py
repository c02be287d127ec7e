"""How images are cut, resized and augmented."""

from dataclasses import dataclass

from trainers.data.randaugment import check_randaugment
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
        """Check every value."""
        for name in ("image_size", "crop_area", "crop_aspect_ratio"):
            # Configuration files give lists.
            object.__setattr__(self, name, _pair(name, getattr(self, name)))
        _check_choice("crop", self.crop, CROPS)
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        if any(side != int(side) or side < 3 for side in self.image_size):
            raise _wrong("image_size", "two whole numbers >= 3", self.image_size)
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise _wrong("crop_area", "0 < smallest <= largest <= 1", self.crop_area)
        if not 0 < self.crop_aspect_ratio[0] <= self.crop_aspect_ratio[1]:
            raise _wrong("crop_aspect_ratio", "0 < smallest <= largest", self.crop_aspect_ratio)
        if self.crop_attempts < 1:
            raise _wrong("crop_attempts", "1 or more", self.crop_attempts)
        for name in ("small_crop_fraction", "eval_crop_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise _wrong(name, "more than 0, at most 1", getattr(self, name))
        if not 0 <= self.padding < min(self.image_size):
            expected = f"0 to {min(self.image_size) - 1}, less than image_size"
            raise _wrong("padding", expected, self.padding)
        check_randaugment(self.randaugment_layers, self.randaugment_magnitude)


def _pair(name: str, value: object) -> tuple[float, float]:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        if all(isinstance(each, (int, float)) for each in value):
            return (value[0], value[1])
    raise _wrong(name, "two numbers, such as (0.5, 1.0)", value)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise _wrong(name, f"one of {', '.join(choices)}", value, did_you_mean(value, choices))


def _wrong(name: str, expected: str, received: object, hint: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"augmentation.{name}: expected {expected}, received {received!r}; "
        f"correct the configuration.{hint}"
    )

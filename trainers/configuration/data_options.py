"""Checks the sections `data`, `augmentation`, `video` and `records`."""

from dataclasses import dataclass

from trainers.configuration.checks import check
from trainers.configuration.checks import check_at_least_zero
from trainers.configuration.checks import check_choice
from trainers.configuration.checks import check_positive
from trainers.configuration.checks import check_share
from trainers.configuration.checks import number_pair

#: kind -> (mean, standard deviation) of each channel, in units of a byte.
CHANNEL_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (
        (0.485 * 255, 0.456 * 255, 0.406 * 255),
        (0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
    "unit": ((127.5,), (127.5,)),
    "zero_one": ((0.0,), (255.0,)),
}
#: The kind that normalizes each clip by its own statistics.
CLIP = "clip"
NORMALIZATIONS = tuple(sorted((*CHANNEL_STATISTICS, CLIP)))


@dataclass(frozen=True)
class DataConfig:
    """The section `data` of a configuration.

    Args:
        source: A built-in set, tfds:NAME, folder, video_folder or records.
        data_dir: Where the data lie; None: the usual place of TFDS, or of Keras for MNIST.
        train_split: Split that is trained on.
        eval_split: Split that is evaluated during the training.
        eval_sets: More sets to evaluate: SPLIT or SOURCE:SPLIT, with commas between.
        final_split: Split that is evaluated once, after the training; None: none.
        normalization: Range of the pixels: unit is -1 to 1, zero_one 0 to 1; or by the
            statistics of imagenet, or clip.
        mixup_alpha: Alpha of the Beta distribution by which pairs of images are mixed;
            0: they are not.
        cutmix_alpha: Alpha of the Beta distribution of the share that an image keeps where a box
            of another one is pasted into it; 0: none is. With both alphas each step draws which
            of the two it does.
        multi_label: Whether an example has any number of labels.
        exif_orientation: Whether photographs are turned upright by their EXIF orientation.
        scaled_decoding: Whether a JPEG is decoded at half or quarter scale where at least the
            pixels that the model sees remain: faster, and slightly other pixels.
        max_bad_examples: How many unreadable examples are skipped.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    source: str = "freedoom_objects"
    data_dir: str | None = None
    train_split: str = "train"
    eval_split: str = "validation"
    eval_sets: tuple[str, ...] = ()
    final_split: str | None = None
    normalization: str = "unit"
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    multi_label: bool = False
    exif_orientation: bool = False
    scaled_decoding: bool = False
    max_bad_examples: int = 0

    def __post_init__(self) -> None:
        check_normalization(self.normalization)
        check_at_least_zero("data.mixup_alpha", self.mixup_alpha)
        check_at_least_zero("data.cutmix_alpha", self.cutmix_alpha)
        check_max_bad_examples(self.max_bad_examples)


def check_max_bad_examples(limit: int) -> None:
    """Checks `data.max_bad_examples`."""
    hint = "0 stops at the first example that cannot be read."
    check(limit >= 0, "data.max_bad_examples", "at least 0", limit, hint)


def check_normalization(kind: str, *, clips: bool | None = None) -> None:
    """Checks that a kind is one of `NORMALIZATIONS`, and not "clip" for images.

    `clips` says whether clips are normalized, or images; None: it is not known yet.
    """
    check_choice("data.normalization", kind, NORMALIZATIONS)
    others = f"one of {', '.join(sorted(CHANNEL_STATISTICS))} for images"
    hint = "It is for the clips of a model with num_frames."
    check(kind != CLIP or clips is not False, "data.normalization", others, kind, hint)


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
        random_erasing: share of the training examples of which a rectangle is erased, last of
            all: 2 to 33 per cent of it, filled with random pixels.
        interpolation: how images are resized: "bicubic" or "bilinear".
        eval_crop_fraction: an evaluation example is the central window of the shape
            of `image_size` and of this share of the largest one that fits, resized;
            1.0 resizes the whole image, whatever its aspect ratio.
        exif_orientation: first turn every image as the EXIF tag of a camera says; set by
            `data.exif_orientation`.
        scaled_decoding: decode a JPEG at half or quarter scale if what is cut out of it has at
            least `image_size` then; set by `data.scaled_decoding`.
        channels: 3 of RGB, or 1 of grey images; set by `model.channels`.

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
    random_erasing: float = 0.0
    interpolation: str = "bicubic"
    eval_crop_fraction: float = 0.875
    exif_orientation: bool = False
    scaled_decoding: bool = False
    channels: int = 3

    def __post_init__(self) -> None:
        _check_channels(self.channels)
        for name in ("image_size", "crop_area", "crop_aspect_ratio"):
            pair = number_pair(f"augmentation.{name}", getattr(self, name))
            object.__setattr__(self, name, pair)
        check_choice("augmentation.crop", self.crop, CROPS)
        check_choice("augmentation.interpolation", self.interpolation, INTERPOLATIONS)
        _check_image_size("augmentation.image_size", self.image_size)
        area, ratio = self.crop_area, self.crop_aspect_ratio
        fits = 0 < area[0] <= area[1] <= 1
        check(fits, "augmentation.crop_area", "0 < smallest <= largest <= 1", area)
        fits = 0 < ratio[0] <= ratio[1]
        check(fits, "augmentation.crop_aspect_ratio", "0 < smallest <= largest", ratio)
        check_positive("augmentation.crop_attempts", self.crop_attempts)
        for name in ("small_crop_fraction", "eval_crop_fraction"):
            value = getattr(self, name)
            check(0 < value <= 1, f"augmentation.{name}", "more than 0, at most 1", value)
        largest = min(self.image_size) - 1
        fits = 0 <= self.padding <= largest
        check(fits, "augmentation.padding", f"0 to {largest}, less than image_size", self.padding)
        check_randaugment(self.randaugment_layers, self.randaugment_magnitude)
        check_share("augmentation.random_erasing", self.random_erasing)


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
        random_erasing: share of the training clips of which a rectangle, the same in all frames,
            is erased; last of all.
        interpolation: how frames are resized: "bicubic" or "bilinear".
        temporal_views: clips of a video that a test looks at, from its start to its end.
        spatial_views: windows of each temporal view, 1 (centre) or 3 (along the longer side).
        view_reduction: how a video's views become one answer: the mean of their
            "logits" or "probabilities", or the "max" of their logits.
        frame_order: "natural"; for control experiments also "repeated", the middle frame
            of a clip in all places, or "shuffled", the frames of a clip in random order.
        scaled_decoding: decode the JPEGs of frames at half or quarter scale if that is at least
            the size that frames are resized to; set by `data.scaled_decoding`.
        channels: 3 of RGB, or 1 of grey videos; set by `model.channels`.

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
    random_erasing: float = 0.0
    interpolation: str = "bilinear"
    temporal_views: int = 4
    spatial_views: int = 3
    view_reduction: str = "logits"
    frame_order: str = "natural"
    scaled_decoding: bool = False
    channels: int = 3

    @property
    def num_views(self) -> int:
        """Returns the number of views of a video in a test."""
        return self.temporal_views * self.spatial_views

    def __post_init__(self) -> None:
        _check_channels(self.channels)
        object.__setattr__(self, "image_size", number_pair("video.image_size", self.image_size))
        _check_image_size("video.image_size", self.image_size)
        for name in ("num_frames", "stride", "min_resize", "temporal_views"):
            check_positive(f"video.{name}", getattr(self, name))
        if self.scale_jitter is not None:
            jitter = number_pair("video.scale_jitter", self.scale_jitter)
            object.__setattr__(self, "scale_jitter", jitter)
            fits = 0 < jitter[0] <= jitter[1]
            check(fits, "video.scale_jitter", "None or 0 < smallest <= largest", jitter)
        check_share("video.random_erasing", self.random_erasing)
        for name in ("color_jitter", "color_drop"):
            check_share(f"video.{name}", getattr(self, name))
            fits = self.channels == 3 or not getattr(self, name)
            hint = "Grey videos have no colours to change."
            check(fits, f"video.{name}", "0 with model.channels=1", getattr(self, name), hint)
        check_randaugment(self.randaugment_layers, self.randaugment_magnitude, section="video")
        check_choice("video.interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("video.spatial_views", self.spatial_views, SPATIAL_VIEWS)
        check_choice("video.view_reduction", self.view_reduction, VIEW_REDUCTIONS)
        check_choice("video.frame_order", self.frame_order, FRAME_ORDERS)


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
            value = getattr(self, name)
            hint = "Leave it out for the usual one."
            check(bool(value), f"records.{name}", "the name of a feature", value, hint)
        fits = self.num_classes is None or self.num_classes >= 1
        hint = "Leave it out if the records come with a dataset.json or labels.txt."
        check(fits, "records.num_classes", "at least 1", self.num_classes, hint)


#: The magnitude at which every operation has full strength.
FULL_MAGNITUDE = 30.0


def check_randaugment(layers: int, magnitude: float, section: str = "augmentation") -> None:
    """Checks the keys of RandAugment in `section`."""
    check(layers >= 0, f"{section}.randaugment_layers", "0 (off) or more", layers)
    fits = 0 <= magnitude <= FULL_MAGNITUDE
    expected = f"from 0 to {FULL_MAGNITUDE:g}"
    hint = "Multiply by 3 if it comes from a scale of 0 to 10."
    check(fits, f"{section}.randaugment_magnitude", expected, magnitude, hint)


def _check_channels(channels: int) -> None:
    hint = (
        "Files are read as grey or RGB; train models of other inputs in Keras, such as with "
        "model.fit."
    )
    check(channels in (1, 3), "model.channels", "1 or 3 in this trainer", channels, hint)


def _check_image_size(key: str, size: tuple[int, int]) -> None:
    fits = all(side == int(side) and side >= 3 for side in size)
    check(fits, key, "two whole numbers of at least 3", size)

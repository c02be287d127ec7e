"""Draws canvases of handwritten digits: one digit in clutter, or several to compare.

    python -m trainers.data.datasets.digit_canvases DIGITS FAMILY OPTIONS SPLIT FIRST STOP OUTPUT

`cluttered_digits`: one digit at a random place among fragments of others, after the translated and
cluttered MNIST. `digit_relation`: five small digits and strokes of noise, after Megapixel MNIST;
the label is the digit that occurs most. The digits are MNIST's (see `mnist`). A canvas depends on
the options, the digits of its split and its number alone.

References: Mnih et al., "Recurrent Models of Visual Attention", 2014; Katharopoulos and Fleuret,
"Processing Megapixel Images with Deep Attention-Sampling Models", 2019.
"""

import abc
import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from trainers.configuration.checks import check
from trainers.configuration.checks import check_at_least_zero
from trainers.configuration.checks import check_positive
from trainers.data.datasets.mnist import NUM_CLASSES
from trainers.data.datasets.mnist import SIDE
from trainers.data.datasets.mnist import Digits
from trainers.data.datasets.mnist import load_mnist
from trainers.utils.array_cache import Arrays
from trainers.utils.array_cache import cached_arrays
from trainers.utils.cache import cache_directory
from trainers.utils.resampling import square_crop
from trainers.utils.subprocesses import Job

CLASS_NAMES = tuple(str(digit) for digit in range(NUM_CLASSES))
#: The splits, in the order of the numbers that they are drawn by.
SPLITS = ("train", "validation", "test")
CANVASES_PER_JOB = 2_500
INK_MARGIN = 4  # MNIST's ink lies in the middle, 20x20 pixels; fragments are cut out there

# Of `digit_relation`: three digits of one class, two of two others.
COPIES = (3, 1, 1)
NUM_DIGITS = sum(COPIES)


@dataclass(frozen=True)
class CanvasOptions(abc.ABC):
    """Everything but the digits that decides the bytes of a set of canvases.

    Attributes:
        seed: Of all that is drawn.
        canvas_size: Side of a canvas, in pixels.
        digit_size: Least and greatest side that the picture of a digit, 28x28 with its margin, is
            scaled to, in pixels.
        counts: Canvases of each split.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    family: ClassVar[str]
    # Part of the cache key: raise it with every change that alters a drawn byte.
    version: ClassVar[int] = 1
    _places_a_side: ClassVar[int]  # the largest digits that must fit side by side

    seed: int = 0
    canvas_size: int = 64
    digit_size: tuple[int, int] = (20, 28)
    counts: dict[str, int] = field(
        default_factory=lambda: {"train": 50_000, "validation": 2_000, "test": 4_000}
    )

    def __post_init__(self) -> None:
        check_at_least_zero("seed", self.seed)
        check_positive("canvas_size", self.canvas_size)
        least, greatest = self.digit_size
        limit = self.canvas_size // self._places_a_side
        fits = 4 <= least <= greatest <= limit
        expected = f"4 <= least <= greatest <= {limit}, for a canvas of {self.canvas_size} pixels"
        check(fits, "digit_size", expected, self.digit_size)
        fits = all(split in SPLITS for split in self.counts)
        check(fits, "counts", f"for splits among {', '.join(SPLITS)}", self.counts)
        for split, count in self.counts.items():
            check_positive(f"counts[{split!r}]", count)

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, digits: Digits) -> tuple[NDArray[np.uint8], int]:
        """Returns a canvas, (canvas_size, canvas_size) uint8, and its label, 0 to 9."""

    def fingerprint(self, split: str, digits: Digits) -> str:
        """Hashes everything that decides the bytes of one split, to 16 hexadecimal digits."""
        facts = {
            **dataclasses.asdict(self),
            "counts": {split: self.counts[split]},
            "version": self.version,
            "digits": [
                hashlib.sha256(array.tobytes()).hexdigest()
                for array in (digits.images, digits.labels)
            ],
        }
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _picture(
        self, rng: np.random.Generator, digits: Digits, label: int, side: int
    ) -> NDArray[np.uint8]:
        """Returns a digit of a class, chosen at random and scaled to (side, side)."""
        image = digits.images[rng.choice(digits.of_class[label])]
        return square_crop(image[:, :, None], 0.0, 0.0, SIDE, side)[:, :, 0]


@dataclass(frozen=True)
class ClutterOptions(CanvasOptions):
    """The options of one digit among fragments of others.

    Attributes:
        num_fragments: Fragments of other digits on a canvas.
        fragment_size: Side of a fragment, in pixels; it is cut out of an unscaled digit.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    family = "cluttered_digits"
    _places_a_side = 1

    digit_size: tuple[int, int] = (28, 39)  # 20 to 28 of ink
    num_fragments: int = 6
    fragment_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_zero("num_fragments", self.num_fragments)
        limit = min(self.canvas_size, SIDE - 2 * INK_MARGIN)
        fits = 1 <= self.fragment_size <= limit
        check(fits, "fragment_size", f"from 1 to {limit}", self.fragment_size)

    def draw(self, rng: np.random.Generator, digits: Digits) -> tuple[NDArray[np.uint8], int]:
        canvas = np.zeros((self.canvas_size, self.canvas_size), np.uint8)
        for _ in range(self.num_fragments):
            image = digits.images[rng.integers(len(digits.images))]
            last = SIDE - INK_MARGIN - self.fragment_size
            top, left = rng.integers(INK_MARGIN, last, size=2, endpoint=True)
            fragment = image[top : top + self.fragment_size, left : left + self.fragment_size]
            _add(canvas, fragment, *_place(rng, self.canvas_size, self.fragment_size))
        label = int(rng.integers(NUM_CLASSES))
        side = int(rng.integers(*self.digit_size, endpoint=True))
        picture = self._picture(rng, digits, label, side)
        _add(canvas, picture, *_place(rng, self.canvas_size, side))
        return canvas, label


@dataclass(frozen=True)
class RelationOptions(CanvasOptions):
    """The options of five digits, of which three are alike.

    Attributes:
        num_strokes: Strokes of noise on a canvas.
        stroke_length: A stroke reaches at most so far, down and across, in pixels.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    family = "digit_relation"
    _places_a_side = 3  # then five squares without overlap are found soon

    canvas_size: int = 96
    digit_size: tuple[int, int] = (24, 32)
    num_strokes: int = 8
    stroke_length: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_zero("num_strokes", self.num_strokes)
        check_positive("stroke_length", self.stroke_length)

    def draw(self, rng: np.random.Generator, digits: Digits) -> tuple[NDArray[np.uint8], int]:
        canvas = np.zeros((self.canvas_size, self.canvas_size), np.uint8)
        for _ in range(self.num_strokes):
            self._add_stroke(canvas, rng)
        different = rng.permutation(NUM_CLASSES)[: len(COPIES)]
        sides = rng.integers(*self.digit_size, size=NUM_DIGITS, endpoint=True)
        for label, side, place in zip(
            np.repeat(different, COPIES), sides, self._places(rng, sides), strict=True
        ):
            _add(canvas, self._picture(rng, digits, int(label), int(side)), *place)
        return canvas, int(different[0])

    def _places(self, rng: np.random.Generator, sides: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the upper left corners of squares that do not overlap, (squares, 2)."""
        # All are drawn again until they fit, so that no square has a better choice than another;
        # one layout in hundreds does, so many are drawn at a time.
        last = self.canvas_size - sides[:, None]
        while True:
            corners = rng.integers(0, last, size=(256, len(sides), 2), endpoint=True)
            before = corners[:, :, None] + sides[:, None, None] <= corners[:, None]
            apart = (before | before.swapaxes(1, 2)).any(axis=3)  # (layouts, squares, squares)
            fits = (apart | np.eye(len(sides), dtype=np.bool_)).all(axis=(1, 2))
            if fits.any():
                return corners[fits.argmax()]

    def _add_stroke(self, canvas: NDArray[np.uint8], rng: np.random.Generator) -> None:
        last = self.canvas_size - 2  # a stroke is two pixels wide
        start = rng.integers(0, last, size=2, endpoint=True)
        reach = rng.integers(-self.stroke_length, self.stroke_length, size=2, endpoint=True)
        way = np.clip(start + reach, 0, last) - start
        steps = max(1, int(np.abs(way).max()))
        # Whole numbers throughout, so that the pixels are the same on every machine.
        rows, columns = start[:, None] + (2 * way[:, None] * np.arange(steps + 1) + steps) // (
            2 * steps
        )
        ink = np.uint8(rng.integers(128, 256))
        for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
            canvas[rows + down, columns + across] = ink


def _place(rng: np.random.Generator, canvas_size: int, side: int) -> NDArray[np.int64]:
    return rng.integers(0, canvas_size - side, size=2, endpoint=True)


def _add(canvas: NDArray[np.uint8], picture: NDArray[np.uint8], top: int, left: int) -> None:
    """Puts a picture on a canvas; of two inks on one pixel the whiter stays."""
    height, width = picture.shape
    part = canvas[top : top + height, left : left + width]
    np.maximum(part, picture, out=part)


#: The sets by their names in `data.source`.
STANDARD_CANVASES: dict[str, CanvasOptions] = {
    "cluttered_digits": ClutterOptions(),
    "cluttered_digits_96": ClutterOptions(canvas_size=96),
    "digit_relation": RelationOptions(),
}
_FAMILIES = {each.family: each for each in (ClutterOptions, RelationOptions)}


def load_canvases(split: str, data_dir: str | None, options: CanvasOptions) -> Arrays:
    """Loads one split from the cache; draws it first if it is not there.

    `data_dir` is that of `load_mnist`. The digits of a split are in no other one.

    Returns:
        "images", (count, canvas_size, canvas_size) uint8, white ink on black, and "labels",
        (count,) int64, 0 to 9.

    Raises:
        ConfigurationError: There is no MNIST, or `options.counts` lacks the split.
        DataError: Files of MNIST are damaged, or drawing failed.
    """
    check(split in options.counts, "split", f"one of {', '.join(options.counts)}", split)
    digits = load_mnist(split, data_dir)
    name = f"{split}-{options.fingerprint(split, digits)}"
    return cached_arrays(
        cache_directory() / options.family / name,
        f"Drawing {options.family}, {split}",
        partial(_jobs, split, options, digits),
    )


def draw_canvases(
    options: CanvasOptions, digits: Digits, split: str, first: int, stop: int
) -> Arrays:
    """Draws the canvases from number `first` on, before `stop`; see `load_canvases`."""
    size = options.canvas_size
    images = np.zeros((stop - first, size, size), np.uint8)
    labels = np.zeros(stop - first, np.int64)
    for place, number in enumerate(range(first, stop)):
        seeds = np.random.SeedSequence([options.seed, SPLITS.index(split), number])
        images[place], labels[place] = options.draw(np.random.default_rng(seeds), digits)
    return {"images": images, "labels": labels}


def _jobs(split: str, options: CanvasOptions, digits: Digits, folder: Path) -> dict[Path, Job]:
    source = folder / "digits.npz"
    np.savez(source, images=digits.images, labels=digits.labels)
    text = json.dumps({**dataclasses.asdict(options), "counts": {}})
    jobs = {}
    for first in range(0, options.counts[split], CANVASES_PER_JOB):
        stop = min(first + CANVASES_PER_JOB, options.counts[split])
        output = folder / f"{first}.npz"
        arguments = (source, options.family, text, split, first, stop, output)
        jobs[output] = Job(f"{first}", __name__, tuple(map(str, arguments)))
    return jobs


def _run_job() -> None:
    """Draws some canvases; `_jobs` gives the arguments of the command line."""
    source, family, text, split, first, stop, output = sys.argv[1:]
    values = json.loads(text)
    options = _FAMILIES[family](**{**values, "digit_size": tuple(values["digit_size"])})
    with np.load(source, allow_pickle=False) as arrays:
        digits = Digits(arrays["images"], arrays["labels"])
    drawn: dict[str, Any] = draw_canvases(options, digits, split, int(first), int(stop))
    np.savez(output, **drawn)


if __name__ == "__main__":
    _run_job()

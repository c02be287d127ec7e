"""Renders the object crops of one Freedoom map; runs in a separate process.

    python -m trainers.data.freedoom.render_images JOB OUTPUT.npz

`JOB` is a `RenderJob` as JSON. What is rendered depends on the job alone, so it does
not matter how many processes share the work.
"""

import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.camera import FRAME_HEIGHT
from trainers.data.freedoom.camera import FRAME_WIDTH
from trainers.data.freedoom.camera import FreedoomScene
from trainers.data.freedoom.camera import MapObject
from trainers.data.freedoom.camera import View
from trainers.data.freedoom.crop import square_crop
from trainers.data.freedoom.engine import engine_seed
from trainers.data.freedoom.options import CLASS_NAMES
from trainers.data.freedoom.options import FreedoomOptions
from trainers.data.freedoom.rendering import save_arrays

SMALLEST_SIDE = 10  # pixels of the frame; smaller objects cannot be recognized
SMALLEST_AREA = 100  # visible pixels
SMALLEST_VISIBLE_PART = 0.25  # of the bounding box
DARKEST_MEAN = 12.0  # of 255


@dataclass(frozen=True)
class RenderJob:
    """One map's share of the set; the other attributes are those of `FreedoomOptions`."""

    map_name: str
    images_per_class: int
    seed: int
    image_size: int
    distance: tuple[float, float]
    turn: float
    crop_scale: tuple[float, float]
    crop_shift: float
    attempts_per_image: int

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RenderJob":
        values = json.loads(text)
        pairs = {key: tuple(values[key]) for key in ("distance", "crop_scale")}
        return cls(**{**values, **pairs})


@dataclass(frozen=True)
class RenderedImages:
    """Images of objects with their class and where the object is.

    Attributes:
        images: (count, size, size, 3) uint8.
        labels: (count,) int64, positions in `CLASS_NAMES`.
        masks: (count, size, size) bool, True where the object is visible.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]


def split_jobs(options: FreedoomOptions, split: str) -> list[RenderJob]:
    """Cuts a split into one job per map, in the order of the maps."""
    return [
        RenderJob(
            map_name=map_name,
            images_per_class=options.splits[split].images_per_class,
            seed=options.seed,
            image_size=options.image_size,
            distance=options.distance,
            turn=options.turn,
            crop_scale=options.crop_scale,
            crop_shift=options.crop_shift,
            attempts_per_image=options.attempts_per_image,
        )
        for map_name in options.splits[split].maps
    ]


def render_map(job: RenderJob) -> RenderedImages:
    """Renders one map, in the current working directory; the images are ordered by class."""
    map_number = int(job.map_name.removeprefix("MAP"))
    rng = np.random.default_rng([job.seed, map_number])
    scene = FreedoomScene(job.map_name, seed=engine_seed(job.seed, map_number))
    images: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.bool_]] = []
    labels: list[int] = []
    for label, name in enumerate(CLASS_NAMES):
        wanted = len(images) + job.images_per_class
        for _ in range(job.images_per_class * job.attempts_per_image):
            candidates = [thing for thing in scene.objects if thing.name == name]
            if not candidates or len(images) == wanted:
                break
            target = candidates[rng.integers(len(candidates))]
            example = _attempt(scene, target, job, rng)
            if example is not None:
                images.append(example[0])
                masks.append(example[1])
                labels.append(label)
    scene.close()
    size = job.image_size
    return RenderedImages(
        images=np.array(images, np.uint8).reshape(-1, size, size, 3),
        labels=np.array(labels, np.int64),
        masks=np.array(masks, np.bool_).reshape(-1, size, size),
    )


def _attempt(
    scene: FreedoomScene,
    target: MapObject,
    job: RenderJob,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    direction = rng.uniform(0.0, 2.0 * math.pi)
    distance = rng.uniform(*job.distance)
    x = target.x + distance * math.cos(direction)
    y = target.y + distance * math.sin(direction)
    view = scene.view(target, x, y, turn=rng.uniform(-job.turn, job.turn))
    if view is None or not _is_recognisable(view):
        return None
    image, mask = _crop(view, job, rng)
    if image.mean() < DARKEST_MEAN or not mask.any():
        return None
    return image, mask


def _is_recognisable(view: View) -> bool:
    area = int(view.mask.sum())
    return (
        min(view.width, view.height) >= SMALLEST_SIDE
        and area >= SMALLEST_AREA
        and area >= SMALLEST_VISIBLE_PART * view.width * view.height
    )


def _crop(
    view: View, job: RenderJob, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    side = max(view.width, view.height) * rng.uniform(*job.crop_scale)
    shift = rng.uniform(-job.crop_shift, job.crop_shift, size=2) * side
    side = min(side, FRAME_HEIGHT - 2.0)
    left = view.left + view.width / 2 + shift[0] - side / 2
    top = view.top + view.height / 2 + shift[1] - side / 2
    left = min(max(left, 0.0), FRAME_WIDTH - side)
    top = min(max(top, 0.0), FRAME_HEIGHT - side)
    image = square_crop(view.frame, left, top, side, job.image_size)
    # A pixel belongs to the object if at least half of it does.
    opacity = view.mask[:, :, None].astype(np.uint8) * np.uint8(255)
    mask = square_crop(opacity, left, top, side, job.image_size)[:, :, 0] >= 128
    return image, mask


def main(arguments: list[str]) -> None:
    """Renders the job in the first argument, JSON, into the file in the second."""
    rendered = render_map(RenderJob.from_json(arguments[0]))
    save_arrays(Path(arguments[1]), vars(rendered))


if __name__ == "__main__":
    main(sys.argv[1:])

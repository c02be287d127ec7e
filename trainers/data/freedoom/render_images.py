"""Renders the object crops of one Freedoom map; runs in a separate process.

    python -m trainers.data.freedoom.render_images MAP IMAGES_PER_CLASS OPTIONS OUTPUT.npz

`OPTIONS` are `FreedoomOptions` as JSON. What is rendered depends on the arguments alone, so it
does not matter how many processes share the work.
"""

import math

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.camera import FRAME_HEIGHT
from trainers.data.freedoom.camera import FRAME_WIDTH
from trainers.data.freedoom.camera import FreedoomScene
from trainers.data.freedoom.camera import View
from trainers.data.freedoom.dataset import run_worker
from trainers.data.freedoom.engine import MapObject
from trainers.data.freedoom.engine import map_seeds
from trainers.data.freedoom.options import CLASS_NAMES
from trainers.data.freedoom.options import FreedoomOptions
from trainers.utils.array_cache import Arrays
from trainers.utils.resampling import square_crop

SMALLEST_SIDE = 10  # pixels of the frame; smaller objects cannot be recognized
SMALLEST_AREA = 100  # visible pixels
SMALLEST_VISIBLE_PART = 0.25  # of the bounding box
DARKEST_MEAN = 12.0  # of 255


def render_map(map_name: str, images_per_class: int, options: FreedoomOptions) -> Arrays:
    """Renders one map, in the current working directory; the images are ordered by class."""
    rng, engine_seed = map_seeds(options.seed, map_name)
    scene = FreedoomScene(map_name, engine_seed)
    images: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.bool_]] = []
    labels: list[int] = []
    for label, name in enumerate(CLASS_NAMES):
        wanted = len(images) + images_per_class
        for _ in range(images_per_class * options.attempts_per_image):
            candidates = [thing for thing in scene.objects if thing.name == name]
            if not candidates or len(images) == wanted:
                break
            target = candidates[rng.integers(len(candidates))]
            example = _attempt(scene, target, options, rng)
            if example is not None:
                images.append(example[0])
                masks.append(example[1])
                labels.append(label)
    scene.close()
    size = options.image_size
    return {
        "images": np.array(images, np.uint8).reshape(-1, size, size, 3),
        "labels": np.array(labels, np.int64),
        "masks": np.array(masks, np.bool_).reshape(-1, size, size),
    }


def _attempt(
    scene: FreedoomScene,
    target: MapObject,
    options: FreedoomOptions,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    direction = rng.uniform(0.0, 2.0 * math.pi)
    distance = rng.uniform(*options.distance)
    x = target.x + distance * math.cos(direction)
    y = target.y + distance * math.sin(direction)
    view = scene.view(target, x, y, turn=rng.uniform(-options.turn, options.turn))
    if view is None or not _is_recognisable(view):
        return None
    image, mask = _crop(view, options, rng)
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
    view: View, options: FreedoomOptions, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    side = max(view.width, view.height) * rng.uniform(*options.crop_scale)
    shift = rng.uniform(-options.crop_shift, options.crop_shift, size=2) * side
    side = min(side, FRAME_HEIGHT - 2.0)
    left = view.left + view.width / 2 + shift[0] - side / 2
    top = view.top + view.height / 2 + shift[1] - side / 2
    left = min(max(left, 0.0), FRAME_WIDTH - side)
    top = min(max(top, 0.0), FRAME_HEIGHT - side)
    image = square_crop(view.frame, left, top, side, options.image_size)
    # A pixel belongs to the object if at least half of it does.
    opacity = view.mask[:, :, None].astype(np.uint8) * np.uint8(255)
    mask = square_crop(opacity, left, top, side, options.image_size)[:, :, 0] >= 128
    return image, mask


if __name__ == "__main__":
    run_worker(FreedoomOptions, render_map)

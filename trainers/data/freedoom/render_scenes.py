"""Renders whole frames with small things in one Freedoom map; runs in a separate process.

    python -m trainers.data.freedoom.render_scenes MAP IMAGES_PER_CLASS OPTIONS OUTPUT.npz

`OPTIONS` are `SceneOptions` as JSON. What is rendered depends on the arguments alone, so it
does not matter how many processes share the work.
"""

import math

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.camera import FreedoomPanorama
from trainers.data.freedoom.camera import Panorama
from trainers.data.freedoom.dataset import run_worker
from trainers.data.freedoom.engine import MapObject
from trainers.data.freedoom.engine import map_seeds
from trainers.data.freedoom.options import CLASS_NAMES
from trainers.data.freedoom.render_images import DARKEST_MEAN
from trainers.data.freedoom.render_images import SMALLEST_VISIBLE_PART
from trainers.data.freedoom.task_options import FRAME_SIZE
from trainers.data.freedoom.task_options import SceneOptions
from trainers.utils.array_cache import Arrays


def render_map(map_name: str, images_per_class: int, options: SceneOptions) -> Arrays:
    """Renders one map, in the current working directory.

    Returns:
        "images", (count, 120, 160, 3) uint8; "masks", (count, 120, 160) uint8, 1 where things of
        the class are visible; "labels", (count,) int64, positions in `options.class_names`. No
        class has more than `images_per_class` images.
    """
    rng, engine_seed = map_seeds(options.seed, map_name)
    camera = FreedoomPanorama(map_name, engine_seed)
    missing = dict.fromkeys(options.class_names, images_per_class)
    images: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for name in options.class_names:
        for _ in range(images_per_class * options.attempts_per_image):
            targets = [thing for thing in camera.objects if thing.name == name]
            if not targets or not missing[name]:
                break
            view = _attempt(camera, targets[rng.integers(len(targets))], options, rng)
            shown = None if view is None else _class_shown(view, options)
            # The view may show things of another class than it was meant to.
            if view is not None and shown is not None and missing[shown[0]]:
                missing[shown[0]] -= 1
                images.append(view.frame)
                masks.append(shown[1].astype(np.uint8))
                labels.append(options.class_names.index(shown[0]))
    camera.close()
    return {
        "images": np.array(images, np.uint8).reshape(-1, *FRAME_SIZE, 3),
        "masks": np.array(masks, np.uint8).reshape(-1, *FRAME_SIZE),
        "labels": np.array(labels, np.int64),
    }


def _attempt(
    camera: FreedoomPanorama,
    target: MapObject,
    options: SceneOptions,
    rng: np.random.Generator,
) -> Panorama | None:
    direction = rng.uniform(0.0, 2.0 * math.pi)
    distance = math.exp(rng.uniform(*np.log(options.distance)))
    x = target.x + distance * math.cos(direction)
    y = target.y + distance * math.sin(direction)
    turn = rng.uniform(-options.turn, options.turn)
    return camera.frame(target, x, y, turn, rng.uniform(-options.pitch, options.pitch))


def _class_shown(view: Panorama, options: SceneOptions) -> tuple[str, NDArray[np.bool_]] | None:
    """Returns the class of the things in a view and where they are.

    None if there are none, or of several kinds, or if they are not small, whole and lit.
    """
    numbers = [number for number, name in view.names.items() if name in CLASS_NAMES]
    names = {view.names[number] for number in numbers}
    if len(names) != 1 or not names <= {*options.class_names} or view.frame.mean() < DARKEST_MEAN:
        return None
    if not _are_recognisable([view.numbers == number for number in numbers], options.object_size):
        return None
    mask = np.isin(view.numbers, numbers)
    return None if view.frame[mask].mean() < DARKEST_MEAN else (names.pop(), mask)


def _are_recognisable(masks: list[NDArray[np.bool_]], size: tuple[int, int]) -> bool:
    """Returns whether the things are whole in view, and the largest is of the size wanted."""
    sides = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        touches_border = rows[0] == 0 or columns[0] == 0
        touches_border |= rows[-1] == mask.shape[0] - 1 or columns[-1] == mask.shape[1] - 1
        if touches_border or mask.sum() < SMALLEST_VISIBLE_PART * height * width:
            return False
        sides.append(max(height, width))
    return bool(size[0] <= max(sides) <= size[1])


if __name__ == "__main__":
    run_worker(SceneOptions, render_map)

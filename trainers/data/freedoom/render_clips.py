"""Renders the ego-motion clips of one Freedoom map; runs in a separate process.

    python -m trainers.data.freedoom.render_clips MAP COUNT OPTIONS OUTPUT.npz

`OPTIONS` are `MotionOptions` as JSON. What is rendered depends on the arguments alone, so it
does not matter how many processes share the work.
"""

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.dataset import run_worker
from trainers.data.freedoom.engine import map_seeds
from trainers.data.freedoom.options import DIRECTIONS
from trainers.data.freedoom.options import MOTION_CLASS_NAMES
from trainers.data.freedoom.options import MotionOptions
from trainers.data.freedoom.player import FRAME_HEIGHT
from trainers.data.freedoom.player import FRAME_WIDTH
from trainers.data.freedoom.player import FreedoomWalk
from trainers.utils.array_cache import Arrays
from trainers.utils.resampling import square_crop

DARKEST_MEAN = 12.0  # of 255
LEAST_CONTRAST = 6.0  # standard deviation of the pixels of the first and the last frame
LEAST_CHANGE = 2.0  # mean difference of the first and the last frame of a motion
STILL_AXIS = 0.5  # with several labels: probability that an axis has no motion


def render_map(map_name: str, count: int, options: MotionOptions) -> Arrays:
    """Renders one map, in the current working directory.

    With single labels the classes follow each other in turn. Raises RuntimeError if a motion fits
    nowhere in the map.
    """
    rng, engine_seed = map_seeds(options.seed, map_name)
    walk = FreedoomWalk(map_name, engine_seed)
    videos: list[NDArray[np.uint8]] = []
    labels: list[int | list[float]] = []
    for number in range(count):
        # Drawn once and kept until it succeeds, so that easily blocked motions are not rarer.
        directions = _directions(options, number, rng)
        videos.append(_clip(walk, directions, options, rng))
        labels.append(label_of(directions, options.multi_label))
    walk.close()
    return {
        "videos": np.stack(videos),
        "labels": np.array(labels, np.float32 if options.multi_label else np.int64),
    }


def label_of(directions: NDArray[np.int64], multi_label: bool) -> int | list[float]:
    """Returns a position in `MOTION_CLASS_NAMES`, or with `multi_label` a 0 or 1 per motion.

    `directions` are (4,) -1, 0 or 1 for each axis of `DIRECTIONS`.
    """
    takes_place = [bool(directions[axis] == sign) for axis, sign in DIRECTIONS.values()]
    if multi_label:
        return [float(value) for value in takes_place]
    return takes_place.index(True) + 1 if any(takes_place) else 0


def _directions(options: MotionOptions, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if options.multi_label:
        moving = (1.0 - STILL_AXIS) / 2.0
        return rng.choice(np.array([-1, 0, 1]), size=4, p=[moving, STILL_AXIS, moving])
    directions = np.zeros(4, np.int64)
    label = number % len(MOTION_CLASS_NAMES)
    if label:
        axis, sign = DIRECTIONS[MOTION_CLASS_NAMES[label]]
        directions[axis] = sign
    return directions


def _clip(
    walk: FreedoomWalk,
    directions: NDArray[np.int64],
    options: MotionOptions,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    for _ in range(options.attempts_per_clip):
        video = _attempt(walk, directions, options, rng)
        if video is not None:
            return video
    raise RuntimeError(
        f"{walk.map_name}: no clip with the directions {directions.tolist()} in "
        f"{options.attempts_per_clip} attempts; raise attempts_per_clip or leave the map out."
    )


def _attempt(
    walk: FreedoomWalk,
    directions: NDArray[np.int64],
    options: MotionOptions,
    rng: np.random.Generator,
) -> NDArray[np.uint8] | None:
    place = walk.places[rng.integers(len(walk.places))]
    angle, pitch = rng.uniform(0.0, 360.0), rng.uniform(-options.pitch, options.pitch)
    speeds = (
        *rng.integers(*options.walk_speed, size=2, endpoint=True),
        rng.uniform(*options.turn_speed),
        rng.uniform(*options.look_speed),
    )
    action = directions * np.array(speeds)
    # The drawn pitch is that of the middle of the clip. If it were that of the start, the last
    # frames alone would give away a look up.
    tics_to_middle = options.tics_before + (options.num_frames - 1) * options.tics_per_frame / 2
    if not walk.stand(place, angle, pitch + action[3] * tics_to_middle):
        return None
    frames = walk.film(action, options.num_frames, options.tics_per_frame, options.tics_before)
    if frames is None or not _is_visible(frames, bool(directions.any())):
        return None
    left = (FRAME_WIDTH - FRAME_HEIGHT) / 2
    return np.stack(
        [square_crop(frame, left, 0.0, FRAME_HEIGHT, options.image_size) for frame in frames]
    )


def _is_visible(frames: NDArray[np.uint8], moving: bool) -> bool:
    margin = (FRAME_WIDTH - FRAME_HEIGHT) // 2
    first, last = frames[[0, -1], :, margin:-margin].astype(np.int16)
    return (
        min(first.mean(), last.mean()) >= DARKEST_MEAN
        and min(first.std(), last.std()) >= LEAST_CONTRAST
        and (not moving or np.abs(first - last).mean() >= LEAST_CHANGE)
    )


if __name__ == "__main__":
    run_worker(MotionOptions, render_map)

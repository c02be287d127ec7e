"""Renders the ego-motion clips of one Freedoom map; runs in a separate process.

    python -m trainers.data.freedoom.render_clips JOB OUTPUT.npz

`JOB` is a `MotionJob` as JSON. What is rendered depends on the job alone, so it does
not matter how many processes share the work.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.crop import square_crop
from trainers.data.freedoom.engine import engine_seed
from trainers.data.freedoom.options import MOTION_CLASS_NAMES
from trainers.data.freedoom.options import MOTION_NAMES
from trainers.data.freedoom.options import MotionOptions
from trainers.data.freedoom.options import direction_of
from trainers.data.freedoom.player import FRAME_HEIGHT
from trainers.data.freedoom.player import FRAME_WIDTH
from trainers.data.freedoom.player import FreedoomWalk
from trainers.data.freedoom.rendering import save_arrays

DARKEST_MEAN = 12.0  # of 255
LEAST_CONTRAST = 6.0  # standard deviation of the pixels of the first and the last frame
LEAST_CHANGE = 2.0  # mean difference of the first and the last frame of a motion
STILL_AXIS = 0.5  # with several labels: probability that an axis has no motion


@dataclass(frozen=True)
class MotionJob:
    """One map's share of the clips; the other attributes are those of `MotionOptions`."""

    map_name: str
    num_clips: int
    multi_label: bool
    seed: int
    num_frames: int
    tics_per_frame: int
    tics_before: int
    image_size: int
    walk_speed: tuple[int, int]
    turn_speed: tuple[float, float]
    look_speed: tuple[float, float]
    pitch: float
    attempts_per_clip: int

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "MotionJob":
        values = json.loads(text)
        pairs = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **pairs})


@dataclass(frozen=True)
class RenderedClips:
    """Clips and what the player does in them.

    Attributes:
        videos: (count, num_frames, size, size, 3) uint8.
        labels: (count,) int64, positions in `CLASS_NAMES`; with several labels
            (count, 8) float32, zeros and ones in the order of `MOTION_NAMES`.
    """

    videos: NDArray[np.uint8]
    labels: NDArray[Any]


def motion_jobs(options: MotionOptions, split: str) -> list[MotionJob]:
    """Cuts a split into one job per map, in the order of the maps."""
    shared = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name != "splits"
    }
    chosen = options.splits[split]
    return [
        MotionJob(map_name=map_name, num_clips=chosen.clips_per_map, **shared)
        for map_name in chosen.maps
    ]


def render_map(job: MotionJob) -> RenderedClips:
    """Renders one map, in the current working directory.

    With single labels the classes follow each other in turn. Raises RuntimeError if a motion fits
    nowhere in the map.
    """
    map_number = int(job.map_name.removeprefix("MAP"))
    rng = np.random.default_rng([job.seed, map_number])
    walk = FreedoomWalk(job.map_name, seed=engine_seed(job.seed, map_number))
    videos: list[NDArray[np.uint8]] = []
    labels: list[int | list[float]] = []
    for number in range(job.num_clips):
        # Drawn once and kept until it succeeds, so that easily blocked motions are not rarer.
        directions = _directions(job, number, rng)
        videos.append(_clip(walk, directions, job, rng))
        labels.append(label_of(directions, job.multi_label))
    walk.close()
    return RenderedClips(
        videos=np.stack(videos),
        labels=np.array(labels, np.float32 if job.multi_label else np.int64),
    )


def label_of(directions: NDArray[np.int64], multi_label: bool) -> int | list[float]:
    """Returns a position in `CLASS_NAMES`, or with `multi_label` a 0 or 1 per `MOTION_NAMES`.

    `directions` are (4,) -1, 0 or 1 for each of `options.AXES`.
    """
    takes_place = [_takes_place(motion, directions) for motion in MOTION_NAMES]
    if multi_label:
        return [float(value) for value in takes_place]
    return takes_place.index(True) + 1 if any(takes_place) else 0


def _takes_place(motion: str, directions: NDArray[np.int64]) -> bool:
    axis, sign = direction_of(motion)
    return bool(directions[axis] == sign)


def _directions(job: MotionJob, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if job.multi_label:
        moving = (1.0 - STILL_AXIS) / 2.0
        return rng.choice(np.array([-1, 0, 1]), size=4, p=[moving, STILL_AXIS, moving])
    directions = np.zeros(4, np.int64)
    label = number % len(MOTION_CLASS_NAMES)
    if label:
        axis, sign = direction_of(MOTION_CLASS_NAMES[label])
        directions[axis] = sign
    return directions


def _clip(
    walk: FreedoomWalk,
    directions: NDArray[np.int64],
    job: MotionJob,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    for _ in range(job.attempts_per_clip):
        video = _attempt(walk, directions, job, rng)
        if video is not None:
            return video
    raise RuntimeError(
        f"{job.map_name}: no clip with the directions {directions.tolist()} in "
        f"{job.attempts_per_clip} attempts; raise attempts_per_clip or leave the map out."
    )


def _attempt(
    walk: FreedoomWalk,
    directions: NDArray[np.int64],
    job: MotionJob,
    rng: np.random.Generator,
) -> NDArray[np.uint8] | None:
    place = walk.places[rng.integers(len(walk.places))]
    angle, pitch = rng.uniform(0.0, 360.0), rng.uniform(-job.pitch, job.pitch)
    speeds = (
        *rng.integers(*job.walk_speed, size=2, endpoint=True),
        rng.uniform(*job.turn_speed),
        rng.uniform(*job.look_speed),
    )
    action = directions * np.array(speeds)
    # The drawn pitch is that of the middle of the clip. If it were that of the start, the last
    # frames alone would give away a look up.
    tics_to_middle = job.tics_before + (job.num_frames - 1) * job.tics_per_frame / 2
    if not walk.stand(place, angle, pitch + action[3] * tics_to_middle):
        return None
    frames = walk.film(action, job.num_frames, job.tics_per_frame, job.tics_before)
    if frames is None or not _is_visible(frames, bool(directions.any())):
        return None
    left = (FRAME_WIDTH - FRAME_HEIGHT) / 2
    return np.stack(
        [square_crop(frame, left, 0.0, FRAME_HEIGHT, job.image_size) for frame in frames]
    )


def _is_visible(frames: NDArray[np.uint8], moving: bool) -> bool:
    margin = (FRAME_WIDTH - FRAME_HEIGHT) // 2
    first, last = frames[[0, -1], :, margin:-margin].astype(np.int16)
    return (
        min(first.mean(), last.mean()) >= DARKEST_MEAN
        and min(first.std(), last.std()) >= LEAST_CONTRAST
        and (not moving or np.abs(first - last).mean() >= LEAST_CHANGE)
    )


def main(arguments: list[str]) -> None:
    """Renders the job in the first argument, JSON, into the file in the second."""
    rendered = render_map(MotionJob.from_json(arguments[0]))
    save_arrays(Path(arguments[1]), vars(rendered))


if __name__ == "__main__":
    main(sys.argv[1:])

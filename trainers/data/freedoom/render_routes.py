"""Renders the clips of two turns in one Freedoom map; runs in a separate process.

    python -m trainers.data.freedoom.render_routes MAP COUNT OPTIONS OUTPUT.npz

`OPTIONS` are `RouteOptions` as JSON. What is rendered depends on the arguments alone, so it
does not matter how many processes share the work.

The clips come in groups of four, one of each pair of directions. They pass the same place at the
same moment between the turns, looking the same way. So the two clips with the same first turn look
alike until the second begins, and the two with the same second turn look alike from the end of the
first, and of either two one has each label: what shows one turn only says nothing of the label. The
player stands still before the first turn, for a walk before it would still be felt after it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.dataset import run_worker
from trainers.data.freedoom.engine import map_seeds
from trainers.data.freedoom.engine import near_power_up
from trainers.data.freedoom.player import FRAME_HEIGHT
from trainers.data.freedoom.player import FRAME_WIDTH
from trainers.data.freedoom.player import FreedoomWalk
from trainers.data.freedoom.player import expected_path
from trainers.data.freedoom.task_options import ROUTE_TURNS
from trainers.data.freedoom.task_options import RouteOptions
from trainers.utils.array_cache import Arrays
from trainers.utils.resampling import square_crop

# Of a clip, in which both turns must be plain to see; the pixels are from 0 to 255.
DARKEST_MEAN = 20.0  # of any frame
LEAST_CONTRAST = 12.0  # standard deviation of the pixels of any frame
LEAST_CHANGE = 8.0  # mean difference of the frames before and after a turn
START_TOLERANCE = 2.0  # map units; the player starts at whole ones
FORWARD, TURN = 0, 2  # axes of an action, see `expected_path`


@dataclass(frozen=True)
class Route:
    """What the clips of a group have in common.

    Attributes:
        turns: (2, 2) int64, first and last frame of each turn: the last one before the view begins
            to turn, and the first one after.
        angles: (2,) float64, of each turn, in degrees.
        pushes: (2,) int64, forward, between and after the turns; 0 stands still.
        pitch: of the camera, in degrees downwards.
    """

    turns: NDArray[np.int64]
    angles: NDArray[np.float64]
    pushes: NDArray[np.int64]
    pitch: float

    def actions(
        self, directions: tuple[int, int], num_frames: int, tics_per_frame: int
    ) -> NDArray[np.float64]:
        """Returns the actions that lead up to each frame, (num_frames, 4); see `film`.

        `directions` are those of the turns, 1 to the left and -1 to the right.
        """
        actions = np.zeros((num_frames, 4))
        (_, first_end), (second, second_end) = self.turns
        stretches = ((first_end + 1, second + 1), (second_end + 1, num_frames))
        for (start, stop), push in zip(stretches, self.pushes, strict=True):
            actions[start:stop, FORWARD] = push
        for (start, end), angle, to_left in zip(self.turns, self.angles, directions, strict=True):
            per_tic = angle / ((end - start) * tics_per_frame)
            actions[start + 1 : end + 1, TURN] = -to_left * per_tic
        return actions


def render_map(map_name: str, count: int, options: RouteOptions) -> Arrays:
    """Renders one map, in the current working directory.

    Returns:
        "videos", (count, num_frames, image_size, image_size, 3) uint8; "labels", (count,) int64,
        positions in `ROUTE_CLASS_NAMES`; "turns", (count, 2, 2) int64, as in `Route`; "angles",
        (count, 2) float32, of each turn in degrees, positive to the left. Four clips each, those
        of a group, are in the order of `ROUTE_TURNS`.

    Raises:
        RuntimeError: A route fits nowhere in the map.
    """
    rng, engine_seed = map_seeds(options.seed, map_name)
    walk = FreedoomWalk(map_name, engine_seed)
    videos: list[NDArray[np.uint8]] = []
    routes = []
    for _ in range(count // len(ROUTE_TURNS)):
        # Drawn once and kept until it succeeds, so that routes that need room are not rarer.
        route = draw_route(options, rng)
        videos += _group(walk, route, options, rng)
        routes.append(route)
    walk.close()
    directions = np.tile(ROUTE_TURNS, (len(routes), 1))
    repeats = len(ROUTE_TURNS)
    angles = directions * np.repeat([route.angles for route in routes], repeats, axis=0)
    return {
        "videos": np.stack(videos),
        "labels": (directions[:, 0] != directions[:, 1]).astype(np.int64),
        "turns": np.repeat([route.turns for route in routes], repeats, axis=0),
        "angles": angles.astype(np.float32),
    }


def draw_route(options: RouteOptions, rng: np.random.Generator) -> Route:
    """Draws when the turns begin and end, their angles, and the stretches after them."""
    lengths = rng.integers(*options.turn_frames, size=2, endpoint=True)
    # One step at least lies before the first turn, and one after the second.
    free = options.num_frames - 3 - lengths.sum() - options.least_gap
    before, until = np.sort(rng.integers(0, free, size=2, endpoint=True))
    first = 1 + before
    second = first + lengths[0] + options.least_gap + until - before
    starts = np.array([first, second])
    pushes = rng.integers(*options.walk_speed, size=2, endpoint=True)
    pushes[rng.random(2) < options.still_share] = 0
    return Route(
        turns=np.stack([starts, starts + lengths], axis=1),
        angles=rng.uniform(*options.turn_angle, size=2),
        pushes=pushes,
        pitch=rng.uniform(-options.pitch, options.pitch),
    )


def _group(
    walk: FreedoomWalk, route: Route, options: RouteOptions, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    for _ in range(options.attempts_per_group):
        videos = _attempt(walk, route, options, rng)
        if videos is not None:
            return videos
    raise RuntimeError(
        f"{walk.map_name}: no group of clips with the turns {route.turns.tolist()} in "
        f"{options.attempts_per_group} attempts; raise attempts_per_group or leave the map out."
    )


def _attempt(
    walk: FreedoomWalk, route: Route, options: RouteOptions, rng: np.random.Generator
) -> list[NDArray[np.uint8]] | None:
    place = walk.places[rng.integers(len(walk.places))]
    heading = rng.uniform(0.0, 360.0)
    videos: dict[int, NDArray[np.uint8]] = {}
    # In random order: what the player picks up in one film is missing from the next.
    for number in rng.permutation(len(ROUTE_TURNS)).tolist():
        video = _clip(walk, route, ROUTE_TURNS[number], place, heading, options)
        if video is None:
            return None
        videos[number] = video
    return [videos[number] for number in sorted(videos)]


def _clip(
    walk: FreedoomWalk,
    route: Route,
    directions: tuple[int, int],
    place: NDArray[np.float64],
    heading: float,
    options: RouteOptions,
) -> NDArray[np.uint8] | None:
    """Films a route that passes a place in the middle between the turns."""
    actions = route.actions(directions, options.num_frames, options.tics_per_frame)
    tics = (options.num_frames - 1) * options.tics_per_frame
    path = expected_path(np.zeros(4), np.repeat(actions[1:], options.tics_per_frame, axis=0), tics)
    middle = int(route.turns[0, 1] + route.turns[1, 0]) // 2
    passes = path[middle * options.tics_per_frame - 1]
    angle = heading - passes[2]
    ahead = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    to_map = np.stack([ahead, [-ahead[1], ahead[0]]])  # from a path that starts to the east
    start = place - passes[:2] @ to_map
    passed = start + path[:: options.tics_per_frame, :2] @ to_map
    if any(near_power_up(x, y, walk.power_ups) for x, y in passed):
        return None
    # Otherwise the player would keep walking from there.
    if walk.settled() is None or not walk.stand(start, angle, route.pitch):
        return None
    if np.linalg.norm(walk.pose()[:2] - start) > START_TOLERANCE:
        return None
    frames = walk.film(actions, options.num_frames, options.tics_per_frame, tics_before=0)
    if frames is None:
        return None
    left = (FRAME_WIDTH - FRAME_HEIGHT) / 2
    video = np.stack(
        [square_crop(frame, left, 0.0, FRAME_HEIGHT, options.image_size) for frame in frames]
    )
    return video if _is_visible(video, route.turns) else None


def _is_visible(video: NDArray[np.uint8], turns: NDArray[np.int64]) -> bool:
    changes = [
        np.abs(video[end].astype(np.int16) - video[start].astype(np.int16)).mean()
        for start, end in turns
    ]
    return bool(
        video.mean(axis=(1, 2, 3)).min() >= DARKEST_MEAN
        and video.std(axis=(1, 2, 3)).min() >= LEAST_CONTRAST
        and min(changes) >= LEAST_CHANGE
    )


if __name__ == "__main__":
    run_worker(RouteOptions, render_map)

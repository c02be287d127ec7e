"""Films a player who moves through a Freedoom map."""

import math

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.engine import POWER_UP_DISTANCE
from trainers.data.freedoom.engine import POWER_UPS
from trainers.data.freedoom.engine import FreedoomMap
from trainers.data.freedoom.engine import is_inverted
from trainers.data.freedoom.engine import near_power_up

FRAME_WIDTH = 160
FRAME_HEIGHT = 120
# The square in the middle of the picture then shows 90 degrees both ways.
FIELD_OF_VIEW = math.degrees(2.0 * math.atan(FRAME_WIDTH / FRAME_HEIGHT))
FIELD_OF_VIEW_TICS = 20  # until the engine has widened the picture
HEIGHT = 4  # the first four variables are the pose
REST = slice(5, 8)  # the velocities
# How the engine moves a player on plain ground.
PUSH = 1.0 / 32.0  # map units per tic, per tic, for one unit of a walking button
FRICTION = 0.90625  # what remains of the velocity after a tic
STOP_SPEED = 1.0 / 16.0  # in map units per tic; who is slower and not pushed stops
# How far the engine may be from the computed path; it rounds angles to 1/65536 turn.
POSITION_TOLERANCE = 1.0  # map units
ANGLE_TOLERANCE = 0.5  # degrees
REST_TICS = 7  # between two looks at whether the player stands still
LONGEST_REST = 10  # looks


def expected_path(
    start: NDArray[np.float64], action: NDArray[np.float64], tics: int
) -> NDArray[np.float64]:
    """Computes the pose after each tic, (tics, 4), of a player who starts at rest and unobstructed.

    Args:
        start: (4,) east and north in map units, angle and pitch in degrees; the angle
            grows to the left, the pitch downwards.
        action: push forward and to the right, turn to the right and upwards in degrees, all for
            one tic; (4,), or (tics, 4) if they differ.
    """
    actions = np.broadcast_to(action, (tics, 4))
    poses = np.empty((tics, 4))
    position, velocity = start[:2].astype(np.float64), np.zeros(2)
    angle, pitch = float(start[2]), float(start[3])
    for tic, (forward, aside, turn, look) in enumerate(actions):
        angle -= turn
        pitch -= look
        ahead = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        right = np.array([ahead[1], -ahead[0]])
        velocity += PUSH * (forward * ahead + aside * right)
        position += velocity
        is_pushed = forward or aside
        stops = not is_pushed and bool((np.abs(velocity) < STOP_SPEED).all())
        velocity *= 0.0 if stops else FRICTION
        poses[tic] = (*position, angle, pitch)
    return poses


class FreedoomWalk(FreedoomMap):
    """A map with a player for whom walls are walls.

    Attributes:
        places: (count, 2) float64, where the player can stand, in map units.
        power_ups: what spoils the picture where it is picked up.
    """

    resolution = "RES_160X120"
    buttons = (
        "MOVE_FORWARD_BACKWARD_DELTA",
        "MOVE_LEFT_RIGHT_DELTA",
        "TURN_LEFT_RIGHT_DELTA",
        "LOOK_UP_DOWN_DELTA",
    )
    variables = (
        "POSITION_X",
        "POSITION_Y",
        "ANGLE",
        "PITCH",
        "POSITION_Z",
        "VELOCITY_X",
        "VELOCITY_Y",
        "VELOCITY_Z",
    )
    commands = ("god", "notarget", "movebob 0")

    def __init__(self, map_name: str, seed: int) -> None:
        super().__init__(map_name, seed)
        things = self._objects()
        places = [
            (round(thing.x), round(thing.y))
            for thing in things
            if not near_power_up(thing.x, thing.y, things)
        ]
        self.places = np.array(places, np.float64)
        self.power_ups = [thing for thing in things if thing.name in POWER_UPS]

    def restart(self) -> None:
        """Begins the map again."""
        super().restart()
        self._game.send_game_command(f"fov {FIELD_OF_VIEW:.2f}")
        self._wait(FIELD_OF_VIEW_TICS)

    def stand(self, place: NDArray[np.float64], angle: float, pitch: float) -> bool:
        """Puts the player at one of `places`, looking at `angle` and `pitch` (down) in degrees.

        Waits until nothing moves the player any more; False if the player cannot stand there.
        """
        self._game.send_game_command(f"warp {place[0]:.0f} {place[1]:.0f}")
        state = self.settled()
        if state is None or math.hypot(*(state[:2] - place)) > POWER_UP_DISTANCE:
            return False
        to_the_right = (state[2] - angle + 180.0) % 360.0 - 180.0
        self._advance((0.0, 0.0, to_the_right, state[3] - pitch), 1)
        return True

    def film(
        self, action: NDArray[np.float64], num_frames: int, tics_per_frame: int, tics_before: int
    ) -> NDArray[np.uint8] | None:
        """Moves the player and films what the player sees.

        Args:
            action: as for `expected_path`, with whole pushes; (4,), or (num_frames, 4) if they
                differ, each of the tics that lead up to its frame.

        Returns:
            (num_frames, 120, 160, 3) uint8, or None unless the engine's position, angle and pitch
            followed the computed path from the first step to the last.
        """
        start = self._variables()
        if start is None:
            return None
        actions = np.broadcast_to(action, (num_frames, 4))
        steps = np.full(num_frames, tics_per_frame)
        steps[0] = tics_before
        path = expected_path(start[:4], np.repeat(actions, steps, axis=0), int(steps.sum()))
        frames = []
        for number, done in enumerate(np.cumsum(steps)):
            if steps[number]:
                self._advance(actions[number], int(steps[number]))
            state = self._variables()
            expected = path[done - 1] if done else start[:4]
            if state is None or not _agree(state, expected, start, action):
                return None
            frames.append(self._game.get_state().screen_buffer.copy())
        if is_inverted(frames[-1]):
            self.restart()
            return None
        return np.stack(frames)

    def pose(self) -> NDArray[np.float64]:
        """Returns where the player is and looks, (4,) as for `expected_path`."""
        return self._read()[:4]

    def settled(self) -> NDArray[np.float64] | None:
        """Waits for the end of sliding and falling; None if there is no end."""
        previous = None
        for _ in range(LONGEST_REST):
            self._wait(REST_TICS)
            state = self._variables()
            if state is None:
                return None
            unmoved = previous is not None and previous[HEIGHT] == state[HEIGHT]
            if unmoved and not state[REST].any():
                return state
            previous = state
        return None

    def _variables(self) -> NDArray[np.float64] | None:
        """Reads the engine's variables; after the end of the map, begins again and returns None."""
        if self._game.is_episode_finished():
            self.restart()
            return None
        return self._read()


def _agree(
    state: NDArray[np.float64],
    expected: NDArray[np.float64],
    start: NDArray[np.float64],
    action: NDArray[np.float64],
) -> bool:
    if not action.any():
        # In a clip without a motion, nothing may move the player, not even a lift.
        return bool((state[: HEIGHT + 1] == start[: HEIGHT + 1]).all())
    difference = state[:4] - expected
    turned = (difference[2:] + 180.0) % 360.0 - 180.0
    return bool(
        math.hypot(*difference[:2]) <= POSITION_TOLERANCE
        and (np.abs(turned) <= ANGLE_TOLERANCE).all()
    )

"""Takes pictures of the objects in a Freedoom map."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.engine import FreedoomMap
from trainers.data.freedoom.engine import MapObject
from trainers.data.freedoom.engine import is_inverted
from trainers.data.freedoom.engine import near_power_up
from trainers.data.freedoom.engine import wad_path
from trainers.data.freedoom.map_geometry import MapGeometry

FRAME_WIDTH = 320
FRAME_HEIGHT = 240
PLAYER_HEIGHT = 56.0  # in map units
PLAYER_RADIUS = 16.0


@dataclass(frozen=True)
class View:
    """What the camera sees of one object, and the object's bounding box in pixels."""

    frame: NDArray[np.uint8]  # (240, 320, 3), the whole picture
    mask: NDArray[np.bool_]  # (240, 320), where the object is visible
    left: int
    top: int
    width: int
    height: int


class FreedoomScene(FreedoomMap):
    """A map with a camera that passes through walls.

    Attributes:
        objects: what lies and stands in the map.
    """

    resolution = "RES_320X240"
    buttons = ("TURN_LEFT_RIGHT_DELTA", "LOOK_UP_DOWN_DELTA")
    variables = ("ANGLE", "PITCH")
    commands = ("god", "notarget", "freeze", "noclip")
    labels = True

    def restart(self) -> None:
        """Begins the map again and lists its objects, which get new identities."""
        super().restart()
        self.objects = self._objects()

    def view(self, target: MapObject, x: float, y: float, turn: float) -> View | None:
        """Looks at an object from a place, `turn` degrees to the left of the object's centre.

        Returns None if the object cannot be seen whole from there.
        """
        if near_power_up(x, y, self.objects):
            return None
        self._look(target, round(x), round(y), turn)
        state = self._game.get_state()
        if state is None or is_inverted(state.screen_buffer):
            self.restart()
            return None
        for label in state.labels:
            if label.object_id == target.identity:
                return _view_of(label, state)
        return None

    def _look(self, target: MapObject, x: int, y: int, turn: float, pitch: float = 0.0) -> None:
        angle, pitch_before = self._read()
        wanted = math.degrees(math.atan2(target.y - y, target.x - x)) + turn
        to_the_right = -((wanted - angle + 180) % 360 - 180)
        self._game.send_game_command(f"warp {x} {y}")
        # Drawing is most of the cost, so only the last tic is drawn.
        self._advance((0.0, 0.0), 2, draw=False)
        self._advance((to_the_right, pitch_before - pitch), 1, draw=False)
        self._advance((0.0, 0.0), 1)


def _view_of(label: Any, state: Any) -> View | None:
    whole = (
        label.x > 0
        and label.y > 0
        and label.x + label.width < FRAME_WIDTH - 1
        and label.y + label.height < FRAME_HEIGHT - 1
    )
    if not whole:
        return None
    mask = state.labels_buffer == label.value
    return View(state.screen_buffer, mask, label.x, label.y, label.width, label.height)


@dataclass(frozen=True)
class Panorama:
    """A whole frame, and the things that are visible in it."""

    frame: NDArray[np.uint8]  # (120, 160, 3)
    numbers: NDArray[np.uint8]  # (120, 160), which thing is visible where; else 0 or a wall's
    names: dict[int, str]  # of the things, by their numbers


class FreedoomPanorama(FreedoomScene):
    """A map with a camera that takes whole frames from where a player could stand."""

    resolution = "RES_160X120"

    def __init__(self, map_name: str, seed: int) -> None:
        super().__init__(map_name, seed)
        self._geometry = MapGeometry(wad_path(), map_name)

    def frame(
        self, target: MapObject, x: float, y: float, turn: float, pitch: float
    ) -> Panorama | None:
        """Takes a picture, `turn` degrees to the left of an object and `pitch` degrees down.

        Returns None if a player could not stand there, or if a wall hides the object.
        """
        place = round(x), round(y)
        if near_power_up(*place, self.objects) or not self._can_see(target, *place):
            return None
        self._look(target, *place, turn, pitch)
        state = self._game.get_state()
        if state is None or is_inverted(state.screen_buffer):
            self.restart()
            return None
        numbers = state.labels_buffer.copy()
        is_visible = np.bincount(numbers.ravel(), minlength=256) > 0
        names = {each.value: each.object_name for each in state.labels if is_visible[each.value]}
        return Panorama(state.screen_buffer.copy(), numbers, names)

    def _can_see(self, target: MapObject, x: float, y: float) -> bool:
        """Whether a player could stand at a place, and sees a thing unless a step hides it."""
        return (
            self._geometry.headroom(x, y) >= PLAYER_HEIGHT
            and self._geometry.is_clear(x, y, target.x, target.y)
            and self._geometry.wall_distance(x, y) >= PLAYER_RADIUS
        )

"""Takes pictures of the objects in a Freedoom map."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.engine import IDLE_TICS
from trainers.data.freedoom.engine import POWER_UP_DISTANCE
from trainers.data.freedoom.engine import POWER_UPS
from trainers.data.freedoom.engine import import_vizdoom
from trainers.data.freedoom.engine import is_inverted
from trainers.data.freedoom.engine import new_game

FRAME_WIDTH = 320
FRAME_HEIGHT = 240
CHEATS = ("god", "notarget", "freeze", "noclip")


@dataclass(frozen=True)
class MapObject:
    """An object in the map; `identity` is the engine's number for it, the same as in labels."""

    identity: int
    name: str
    x: float  # east, in map units
    y: float  # north, in map units


@dataclass(frozen=True)
class View:
    """What the camera sees of one object, and the object's bounding box in pixels."""

    frame: NDArray[np.uint8]  # (240, 320, 3), the whole picture
    mask: NDArray[np.bool_]  # (240, 320), where the object is visible
    left: int
    top: int
    width: int
    height: int


class FreedoomScene:
    """One map of `freedoom2.wad` with a camera that passes through walls.

    The working directory must belong to this process, because the engine writes into it. `seed`
    is that of the engine's random numbers, 0 to 2**31 - 1.
    """

    def __init__(self, map_name: str, seed: int) -> None:
        self._vizdoom = import_vizdoom()
        buttons, variables = ("TURN_LEFT_RIGHT_DELTA",), ("ANGLE",)
        self._game = new_game(map_name, seed, "RES_320X240", buttons, variables)
        self._game.set_labels_buffer_enabled(True)
        self._game.init()
        self.objects: list[MapObject] = []
        self.restart()

    def restart(self) -> None:
        """Begins the map again and lists its objects, which get new identities."""
        self._game.new_episode()
        for cheat in CHEATS:
            self._game.send_game_command(cheat)
        self._game.make_action([0.0], IDLE_TICS)
        self.objects = [
            MapObject(thing.id, thing.name, thing.position_x, thing.position_y)
            for thing in self._game.get_state().objects
        ]
        self._power_ups = [thing for thing in self.objects if thing.name in POWER_UPS]

    def view(self, target: MapObject, x: float, y: float, turn: float) -> View | None:
        """Looks at an object from a place, `turn` degrees to the left of the object's centre.

        Returns None if the object cannot be seen whole from there.
        """
        if any(
            math.hypot(thing.x - x, thing.y - y) < POWER_UP_DISTANCE for thing in self._power_ups
        ):
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

    def close(self) -> None:
        """Ends the engine's process."""
        self._game.close()

    def _look(self, target: MapObject, x: int, y: int, turn: float) -> None:
        angle = self._game.get_game_variable(self._vizdoom.GameVariable.ANGLE)
        wanted = math.degrees(math.atan2(target.y - y, target.x - x)) + turn
        to_the_right = -((wanted - angle + 180) % 360 - 180)
        self._game.send_game_command(f"warp {x} {y}")
        # Drawing is most of the cost, so only the last tic is drawn.
        self._advance(0.0, 2, draw=False)
        self._advance(to_the_right, 1, draw=False)
        self._advance(0.0, 1, draw=True)

    def _advance(self, to_the_right: float, tics: int, draw: bool) -> None:
        self._game.set_action([to_the_right])
        self._game.advance_action(tics, draw)


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

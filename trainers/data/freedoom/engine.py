"""Opens Freedoom maps in the game engine and detects spoiled pictures."""

import importlib.metadata
import math
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.utils.errors import ConfigurationError

# Standing on these inverts, tints or brightens the whole picture for half a minute.
POWER_UPS = ("InvulnerabilitySphere", "Infrared", "RadSuit", "Berserk", "BlurSphere")
POWER_UP_DISTANCE = 64.0  # map units; an item is picked up within about 36
IDLE_TICS = 20  # after a new episode, until doors, lifts and the camera rest


def import_vizdoom() -> Any:
    """Returns the module `vizdoom`; raises ConfigurationError if it is not installed."""
    try:
        import vizdoom
    except ImportError as error:
        raise ConfigurationError(
            "The Freedoom data are rendered by the package 'vizdoom', which could not "
            f"be imported ({error}). Install it with: "
            "pip install '.[demo]' in a clone"
        ) from error
    return vizdoom


def wad_path() -> Path:
    """Returns the file with the maps of Freedoom, which comes with the package `vizdoom`."""
    return Path(import_vizdoom().__file__).parent / "freedoom2.wad"


def engine_version() -> str:
    """Returns the version of the package `vizdoom`, without importing it where possible."""
    try:
        return importlib.metadata.version("vizdoom")
    except importlib.metadata.PackageNotFoundError:
        return str(import_vizdoom().__version__)


def map_seeds(seed: int, map_name: str) -> tuple[np.random.Generator, int]:
    """Returns what one map of a set is drawn by, and the engine's seed, 0 to 2**31 - 1."""
    map_number = int(map_name.removeprefix("MAP"))
    return np.random.default_rng([seed, map_number]), (seed * 100 + map_number) % 2**31


def is_inverted(frame: NDArray[np.uint8]) -> bool:
    """Detects the negative in pure grey that the engine draws under invulnerability."""
    # Every eighth pixel is enough: an ordinary picture of the game always has some colour.
    sample = frame[::8, ::8].astype(np.int16)
    is_grey = (sample.max(axis=2) == sample.min(axis=2)).all()
    return bool(is_grey and sample.mean() > 12)


@dataclass(frozen=True)
class MapObject:
    """An object in the map; `identity` is the engine's number for it, the same as in labels."""

    identity: int
    name: str
    x: float  # east, in map units
    y: float  # north, in map units


def near_power_up(x: float, y: float, objects: Sequence[MapObject]) -> bool:
    """Returns whether a place is so near that the player may pick up what spoils the picture."""
    return any(
        thing.name in POWER_UPS and math.hypot(thing.x - x, thing.y - y) < POWER_UP_DISTANCE
        for thing in objects
    )


class FreedoomMap:
    """One map of `freedoom2.wad` in the engine, with a bare picture.

    The working directory must belong to this process, because the engine writes into it. `seed`
    is that of the engine's random numbers, 0 to 2**31 - 1.
    """

    resolution: str  # of the picture; a name in `vizdoom.ScreenResolution`
    buttons: tuple[str, ...]  # the entries of an action; names in `vizdoom.Button`
    variables: tuple[str, ...]  # what a state contains; names in `vizdoom.GameVariable`
    commands: tuple[str, ...]  # given to the engine after each beginning of the map
    labels = False  # whether a state says where each object is visible

    def __init__(self, map_name: str, seed: int) -> None:
        self.map_name = map_name
        vizdoom = import_vizdoom()
        game = vizdoom.DoomGame()
        game.set_doom_config_path(str(Path("engine.ini").absolute()))
        game.set_doom_game_path(str(wad_path()))
        game.set_doom_scenario_path("")
        game.set_doom_map(map_name)
        game.set_seed(seed)
        game.set_episode_timeout(10**8)
        game.set_window_visible(False)
        game.set_screen_resolution(getattr(vizdoom.ScreenResolution, self.resolution))
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        for hide in (
            game.set_render_hud,
            game.set_render_weapon,
            game.set_render_crosshair,
            game.set_render_messages,
            game.set_render_screen_flashes,
        ):
            hide(False)
        game.set_objects_info_enabled(True)
        game.set_labels_buffer_enabled(self.labels)
        game.set_available_buttons([getattr(vizdoom.Button, name) for name in self.buttons])
        variables = [getattr(vizdoom.GameVariable, name) for name in self.variables]
        game.set_available_game_variables(variables)
        game.add_game_args("+sv_cheats 1 +freelook 1 +cl_showsecretmessage 0")
        game.init()
        self._game = game
        self.restart()

    def restart(self) -> None:
        """Begins the map again."""
        self._game.new_episode()
        for command in self.commands:
            self._game.send_game_command(command)
        self._wait(IDLE_TICS)

    def close(self) -> None:
        """Ends the engine's process."""
        self._game.close()

    def _objects(self) -> list[MapObject]:
        return [
            MapObject(thing.id, thing.name, thing.position_x, thing.position_y)
            for thing in self._game.get_state().objects
        ]

    def _read(self) -> NDArray[np.float64]:
        """Returns the values of `variables`."""
        names = self._game.get_available_game_variables()
        return np.array([self._game.get_game_variable(name) for name in names])

    def _wait(self, tics: int) -> None:
        self._advance([0.0] * len(self.buttons), tics)

    def _advance(self, action: Iterable[float], tics: int, draw: bool = True) -> None:
        self._game.set_action([float(value) for value in action])
        # Variables are updated with the picture, and only the last tic makes one.
        self._game.advance_action(tics, draw)

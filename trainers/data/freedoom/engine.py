"""Opens Freedoom maps in the game engine and detects spoiled pictures."""

import importlib.metadata
from collections.abc import Sequence
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


def engine_version() -> str:
    """Returns the version of the package `vizdoom`, without importing it where possible."""
    try:
        return importlib.metadata.version("vizdoom")
    except importlib.metadata.PackageNotFoundError:
        return str(import_vizdoom().__version__)


def engine_seed(seed: int, map_number: int) -> int:
    """Returns the engine's seed, 0 to 2**31 - 1, for one map of a set."""
    return (seed * 100 + map_number) % 2**31


def new_game(
    map_name: str, seed: int, resolution: str, buttons: Sequence[str], variables: Sequence[str]
) -> Any:
    """Sets the engine up for one map of `freedoom2.wad`, with a bare picture.

    The working directory must belong to this process, because the engine writes into it.

    Args:
        map_name: "MAP01" to "MAP32".
        seed: of the engine's random numbers, 0 to 2**31 - 1.
        resolution: of the picture; a name in `vizdoom.ScreenResolution`.
        buttons: the entries of an action; names in `vizdoom.Button`.
        variables: what a state contains; names in `vizdoom.GameVariable`.

    Returns:
        A `vizdoom.DoomGame`; the caller starts it with `init`.
    """
    vizdoom = import_vizdoom()
    game = vizdoom.DoomGame()
    game.set_doom_config_path(str(Path("engine.ini").absolute()))
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / "freedoom2.wad"))
    game.set_doom_scenario_path("")
    game.set_doom_map(map_name)
    game.set_seed(seed)
    game.set_episode_timeout(10**8)
    game.set_window_visible(False)
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, resolution))
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
    game.set_available_buttons([getattr(vizdoom.Button, name) for name in buttons])
    game.set_available_game_variables([getattr(vizdoom.GameVariable, name) for name in variables])
    game.add_game_args("+sv_cheats 1 +freelook 1 +cl_showsecretmessage 0")
    return game


def is_inverted(frame: NDArray[np.uint8]) -> bool:
    """Detects the negative in pure grey that the engine draws under invulnerability."""
    # Every eighth pixel is enough: an ordinary picture of the game always has some colour.
    sample = frame[::8, ::8].astype(np.int16)
    is_grey = (sample.max(axis=2) == sample.min(axis=2)).all()
    return bool(is_grey and sample.mean() > 12)

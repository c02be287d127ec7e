"""What the Freedoom object set consists of: classes, maps and rendering options."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from dataclasses import field
from typing import Any

# Part of the cache key: raise it with every change that alters a rendered byte.
RENDERER_VERSION = 1

# The engine's names; the order gives the label numbers.
CLASS_NAMES = (
    "Zombieman",
    "ShotgunGuy",
    "ChaingunGuy",
    "DoomImp",
    "Demon",
    "LostSoul",
    "Cacodemon",
    "HellKnight",
    "Revenant",
    "ExplosiveBarrel",
    "HealthBonus",
    "ArmorBonus",
    "Stimpack",
    "Medikit",
    "Shell",
    "ShellBox",
    "ClipBox",
    "RocketAmmo",
    "RocketBox",
    "Candlestick",
)
SPLIT_NAMES = ("train", "validation", "test")


def map_names(first: int, last: int) -> tuple[str, ...]:
    """Lists maps of `freedoom2.wad`.

    Args:
        first: number of the first map, at least 1.
        last: number of the last map, at most 32.

    Returns:
        Names such as "MAP01".
    """
    return tuple(f"MAP{number:02d}" for number in range(first, last + 1))


def fingerprint(facts: dict[str, Any]) -> str:
    """Hashes the facts that decide the bytes of a rendered file.

    Args:
        facts: all that JSON can write.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SplitOptions:
    """The maps of one split.

    Attributes:
        maps: of `freedoom2.wad`; no map belongs to two splits.
        images_per_class: tried for each map and class the map contains.
    """

    maps: tuple[str, ...]
    images_per_class: int


@dataclass(frozen=True)
class FreedoomOptions:
    """Everything that decides the bytes of the rendered set.

    Attributes:
        seed: of places, directions and the engine.
        image_size: side of the images, in pixels.
        distance: least and greatest distance from camera to object, in map units.
        turn: the camera looks at most this far past the object, in degrees.
        crop_scale: least and greatest side of the crop over that of the object.
        crop_shift: the object lies off centre by at most this part of the crop.
        attempts_per_image: views tried before a class of a map is given up.
        splits: the three splits by name.
    """

    seed: int = 0
    image_size: int = 64
    distance: tuple[float, float] = (60.0, 190.0)
    turn: float = 14.0
    crop_scale: tuple[float, float] = (1.15, 1.8)
    crop_shift: float = 0.12
    attempts_per_image: int = 5
    splits: dict[str, SplitOptions] = field(
        default_factory=lambda: {
            "train": SplitOptions(map_names(1, 20), 34),
            "validation": SplitOptions(map_names(21, 24), 20),
            "test": SplitOptions(map_names(25, 32), 20),
        }
    )

    def fingerprint(self, split: str, engine_version: str) -> str:
        """Hashes everything that decides the bytes of one split.

        Args:
            split: a key of `splits`.
            engine_version: of the package `vizdoom`.

        Returns:
            16 hexadecimal digits.
        """
        facts = dataclasses.asdict(self)
        facts["splits"] = facts["splits"][split]
        facts["engine_version"] = engine_version
        facts["renderer_version"] = RENDERER_VERSION
        facts["class_names"] = CLASS_NAMES
        return fingerprint(facts)

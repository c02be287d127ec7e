"""Defines classes, maps and rendering options of the Freedoom image set and clip sets."""

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from trainers.utils.errors import ConfigurationError

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
    """Returns names of maps of `freedoom2.wad`, such as "MAP01"; they end with "MAP32"."""
    return tuple(f"MAP{number:02d}" for number in range(first, last + 1))


def fingerprint(facts: dict[str, Any]) -> str:
    """Hashes the facts that decide the bytes of a rendered file, to 16 hexadecimal digits."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SplitOptions:
    """The maps of one split; no map belongs to two splits."""

    maps: tuple[str, ...]
    images_per_class: int  # tried for each map and class the map contains


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
        """Hashes everything that decides the bytes of one split."""
        facts = dataclasses.asdict(self)
        facts["splits"] = facts["splits"][split]
        facts["engine_version"] = engine_version
        facts["renderer_version"] = RENDERER_VERSION
        facts["class_names"] = CLASS_NAMES
        return fingerprint(facts)


# Part of the cache key: raise it with every change that alters a rendered byte.
MOTION_RENDERER_VERSION = 1

# Each axis has the motion that the engine counts as negative, and the positive one.
AXES = (
    ("backward", "forward"),
    ("strafe_left", "strafe_right"),
    ("turn_left", "turn_right"),
    ("look_down", "look_up"),
)
# The order gives the label numbers.
MOTION_NAMES = (
    "forward",
    "backward",
    "strafe_left",
    "strafe_right",
    "turn_left",
    "turn_right",
    "look_up",
    "look_down",
)
MOTION_CLASS_NAMES = ("still", *MOTION_NAMES)
# Axes whose motions a mirror swaps; the others look the same there.
_MIRRORED_AXES = (AXES[1], AXES[2])


@dataclass(frozen=True)
class MotionSplit:
    """The maps of one split; no map belongs to two splits."""

    maps: tuple[str, ...]
    clips_per_map: int


@dataclass(frozen=True)
class MotionOptions:
    """Everything that decides the bytes of the rendered clips.

    Attributes:
        multi_label: any set of motions at once, labelled by a vector, instead of one
            motion or none, labelled by a number.
        seed: of places, directions, speeds and the engine.
        num_frames: of a clip.
        tics_per_frame: engine steps from frame to frame, 35 per second.
        tics_before: steps of the motion before the first frame, so that it is already
            under way there.
        image_size: side of the frames, in pixels.
        walk_speed: least and greatest push forward, back or aside, whole numbers: acceleration
            in units of 1/32 map unit per tic, per tic.
        turn_speed: least and greatest, in degrees per tic.
        look_speed: least and greatest, in degrees per tic.
        pitch: the camera's greatest angle up or down in the middle of a clip, in degrees.
        attempts_per_clip: places tried before the map is given up, which is an error.
        splits: the three splits by name.

    Raises:
        ConfigurationError: a split whose classes cannot have equally many clips.
    """

    multi_label: bool = False
    seed: int = 0
    num_frames: int = 16
    tics_per_frame: int = 2
    tics_before: int = 6
    image_size: int = 64
    walk_speed: tuple[int, int] = (11, 21)
    turn_speed: tuple[float, float] = (1.3, 2.6)
    look_speed: tuple[float, float] = (0.5, 0.9)
    pitch: float = 8.0
    attempts_per_clip: int = 1000
    splits: dict[str, MotionSplit] = field(
        default_factory=lambda: {
            "train": MotionSplit(map_names(1, 20), 108),
            "validation": MotionSplit(map_names(21, 24), 108),
            "test": MotionSplit(map_names(25, 32), 72),
        }
    )

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if not self.multi_label and split.clips_per_map % len(MOTION_CLASS_NAMES):
                raise ConfigurationError(
                    f"clips_per_map of the split {name!r}: expected a multiple of "
                    f"{len(MOTION_CLASS_NAMES)}, the number of classes, received "
                    f"{split.clips_per_map}."
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the classes, in the order of the labels."""
        return MOTION_NAMES if self.multi_label else MOTION_CLASS_NAMES

    @property
    def mirrored_classes(self) -> tuple[int, ...]:
        """Returns for each class the one that a mirrored clip of it shows."""
        swapped = {a: b for pair in _MIRRORED_AXES for a, b in (pair, pair[::-1])}
        names = self.class_names
        return tuple(names.index(swapped.get(name, name)) for name in names)

    def fingerprint(self, split: str, engine_version: str) -> str:
        """Hashes everything that decides the bytes of one split."""
        facts = dataclasses.asdict(self)
        # The key's name when the first sets were rendered, which users have in their caches.
        facts["several_labels"] = facts.pop("multi_label")
        facts["splits"] = facts["splits"][split]
        facts["engine_version"] = engine_version
        facts["renderer_version"] = MOTION_RENDERER_VERSION
        facts["class_names"] = self.class_names
        return fingerprint(facts)


@functools.cache
def direction_of(motion: str) -> tuple[int, int]:
    """Returns the axis of a motion, 0 to 3, and its sign there, -1 or 1."""
    axis = next(number for number, pair in enumerate(AXES) if motion in pair)
    return axis, 1 if motion == AXES[axis][1] else -1

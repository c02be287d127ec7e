"""Defines classes, maps and rendering options of the Freedoom sets of images and clips."""

import abc
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from dataclasses import field
from typing import ClassVar
from typing import Self

from trainers.utils.errors import ConfigurationError

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


def map_names(first: int, last: int) -> tuple[str, ...]:
    """Returns names of maps of `freedoom2.wad`, such as "MAP01"; they end with "MAP32"."""
    return tuple(f"MAP{number:02d}" for number in range(first, last + 1))


@dataclass(frozen=True)
class SplitOptions:
    """The maps of one split; no map belongs to two splits.

    `count` is the number of clips of each map, or of the images that are tried for each map and
    class the map contains.
    """

    maps: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class RenderOptions(abc.ABC):
    """Everything that decides the bytes of a rendered set: what images and clips share."""

    examples: ClassVar[str]  # what is rendered, in the plural, for messages
    pixels: ClassVar[str]  # the name of the array of pixels in the cache file
    module: ClassVar[str]  # renders one map
    count_key: ClassVar[str]  # what the cache key calls `SplitOptions.count`
    # Part of the cache key: raise it with every change that alters a rendered byte.
    renderer_version: ClassVar[int]
    is_mapped: ClassVar[bool] = False  # kept as arrays to map, for sets of gigabytes

    seed: int = 0  # of all that is drawn, and of the engine
    splits: dict[str, SplitOptions] = field(default_factory=dict)

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Returns the name of the set in `data.source`."""

    @property
    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Returns the classes, in the order of the labels."""

    @property
    def mirrored_classes(self) -> tuple[int, ...] | None:
        """Returns for each class the one that a mirrored example shows; None if it is the same."""
        return None

    def fingerprint(self, split: str, engine_version: str) -> str:
        """Hashes everything that decides the bytes of one split, to 16 hexadecimal digits."""
        chosen = self.splits[split]
        facts = {
            **dataclasses.asdict(self),
            "splits": {"maps": chosen.maps, self.count_key: chosen.count},
            "engine_version": engine_version,
            "renderer_version": self.renderer_version,
            "class_names": self.class_names,
        }
        if "multi_label" in facts:
            # The key's name when the first sets were rendered, which users have in their caches.
            facts["several_labels"] = facts.pop("multi_label")
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Returns all options except the splits."""
        return json.dumps({**dataclasses.asdict(self), "splits": {}})

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        pairs = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **pairs})


@dataclass(frozen=True)
class FreedoomOptions(RenderOptions):
    """The options of the image set.

    Attributes:
        image_size: side of an image, in pixels.
        distance: least and greatest distance from camera to object, in map units.
        turn: the camera looks at most this far past the object, in degrees.
        crop_scale: least and greatest side of the crop over that of the object.
        crop_shift: the object lies off centre by at most this part of the crop.
        attempts_per_image: views tried before a class of a map is given up.
    """

    examples = "images"
    pixels = "images"
    module = "trainers.data.freedoom.render_images"
    count_key = "images_per_class"
    renderer_version = 1
    name = "freedoom_objects"
    class_names = CLASS_NAMES

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


# The axis of each motion, 0 to 3, and the sign by which the engine counts it there. The order gives
# the label numbers.
DIRECTIONS = {
    "forward": (0, 1),
    "backward": (0, -1),
    "strafe_left": (1, -1),
    "strafe_right": (1, 1),
    "turn_left": (2, -1),
    "turn_right": (2, 1),
    "look_up": (3, 1),
    "look_down": (3, -1),
}
MOTION_NAMES = tuple(DIRECTIONS)
MOTION_CLASS_NAMES = ("still", *MOTION_NAMES)
# The motions that a mirror swaps; the others look the same there.
_MIRRORED = {
    "strafe_left": "strafe_right",
    "strafe_right": "strafe_left",
    "turn_left": "turn_right",
    "turn_right": "turn_left",
}


@dataclass(frozen=True)
class MotionOptions(RenderOptions):
    """The options of the clip sets.

    Attributes:
        image_size: side of a frame, in pixels.
        multi_label: any set of motions at once, labelled by a vector, instead of one
            motion or none, labelled by a number.
        num_frames: of a clip.
        tics_per_frame: engine steps from frame to frame, 35 per second.
        tics_before: steps of the motion before the first frame, so that it is already
            under way there.
        walk_speed: least and greatest push forward, back or aside, whole numbers: acceleration
            in units of 1/32 map unit per tic, per tic.
        turn_speed: least and greatest, in degrees per tic.
        look_speed: least and greatest, in degrees per tic.
        pitch: the camera's greatest angle up or down in the middle of a clip, in degrees.
        attempts_per_clip: places tried before the map is given up, which is an error.

    Raises:
        ConfigurationError: a split whose classes cannot have equally many clips.
    """

    examples = "clips"
    pixels = "videos"
    module = "trainers.data.freedoom.render_clips"
    count_key = "clips_per_map"
    renderer_version = 1

    image_size: int = 64
    multi_label: bool = False
    num_frames: int = 16
    tics_per_frame: int = 2
    tics_before: int = 6
    walk_speed: tuple[int, int] = (11, 21)
    turn_speed: tuple[float, float] = (1.3, 2.6)
    look_speed: tuple[float, float] = (0.5, 0.9)
    pitch: float = 8.0
    attempts_per_clip: int = 1000
    splits: dict[str, SplitOptions] = field(
        default_factory=lambda: {
            "train": SplitOptions(map_names(1, 20), 108),
            "validation": SplitOptions(map_names(21, 24), 108),
            "test": SplitOptions(map_names(25, 32), 72),
        }
    )

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if not self.multi_label and split.count % len(MOTION_CLASS_NAMES):
                raise ConfigurationError(
                    f"clips_per_map of the split {name!r}: expected a multiple of "
                    f"{len(MOTION_CLASS_NAMES)}, the number of classes, received {split.count}."
                )

    @property
    def name(self) -> str:
        return "freedoom_multilabel" if self.multi_label else "freedoom_motion"

    @property
    def class_names(self) -> tuple[str, ...]:
        return MOTION_NAMES if self.multi_label else MOTION_CLASS_NAMES

    @property
    def mirrored_classes(self) -> tuple[int, ...]:
        names = self.class_names
        return tuple(names.index(_MIRRORED.get(name, name)) for name in names)

"""Defines classes and rendering options of the tasks that show where learned tokens pay."""

from dataclasses import dataclass
from dataclasses import field

from trainers.configuration.checks import check
from trainers.configuration.checks import check_positive
from trainers.configuration.checks import check_share
from trainers.data.freedoom.options import RenderOptions
from trainers.data.freedoom.options import SplitOptions
from trainers.data.freedoom.options import map_names

FRAME_SIZE = (120, 160)  # of the whole frames: height and width, in pixels
# Kinds of things that lie about in nearly every map, so that a map says little of the label.
SCENE_CLASS_NAMES = (
    "DoomImp",
    "HealthBonus",
    "ArmorBonus",
    "Stimpack",
    "Medikit",
    "Shell",
    "ShellBox",
    "ClipBox",
)


@dataclass(frozen=True)
class SceneOptions(RenderOptions):
    """The options of the set of whole frames, each with things of one class, small in view.

    None of the other kinds that `freedoom_objects` has is in view.

    Attributes:
        object_size: least and greatest longer side of what is visible of the largest thing of the
            class, in pixels.
        distance: least and greatest distance from the camera to the thing that it is meant to
            show, in map units; its logarithm is uniform, as sizes in view are then.
        turn: the camera looks at most this far past that thing, in degrees.
        pitch: the camera looks at most this far up or down, in degrees.
        attempts_per_image: views tried before a class of a map is given up.

    Raises:
        ConfigurationError: a value is out of range.
    """

    examples = "images"
    pixels = "images"
    module = "trainers.data.freedoom.render_scenes"
    count_key = "images_per_class"
    renderer_version = 1
    is_mapped = True
    name = "freedoom_scenes"
    class_names = SCENE_CLASS_NAMES

    object_size: tuple[int, int] = (8, 24)
    distance: tuple[float, float] = (60.0, 640.0)
    turn: float = 38.0
    pitch: float = 10.0
    attempts_per_image: int = 40
    splits: dict[str, SplitOptions] = field(
        default_factory=lambda: {
            "train": SplitOptions(map_names(1, 20), 170),
            "validation": SplitOptions(map_names(21, 24), 100),
            "test": SplitOptions(map_names(25, 32), 100),
        }
    )

    def __post_init__(self) -> None:
        least, greatest = self.object_size
        limit = min(FRAME_SIZE) - 2
        fits = 1 <= least <= greatest <= limit
        check(fits, "object_size", f"1 <= least <= greatest <= {limit}", self.object_size)
        near, far = self.distance
        check(0 < near <= far, "distance", "0 < nearest <= farthest", self.distance)
        for name, limit in (("turn", 44), ("pitch", 30)):
            value = getattr(self, name)
            check(0 <= value <= limit, name, f"from 0 to {limit} degrees", value)
        check_positive("attempts_per_image", self.attempts_per_image)


# Of two turns, whether the second undoes the first.
ROUTE_CLASS_NAMES = ("same way", "opposite ways")
#: The directions of both turns in the clips of a group, 1 is to the left.
ROUTE_TURNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True)
class RouteOptions(RenderOptions):
    """The options of the clips of two turns, far apart.

    Attributes:
        image_size: side of a frame, in pixels.
        num_frames: of a clip.
        tics_per_frame: engine steps from frame to frame, 35 per second.
        turn_angle: least and greatest, in degrees.
        turn_frames: least and greatest length of a turn, in steps from frame to frame.
        least_gap: the second turn begins at least so many frames after the end of the first.
        walk_speed: least and greatest push forward, as in `MotionOptions`.
        still_share: probability that the player stands still between, or after, the turns; else the
            player walks straight on. Before the first turn the player stands still.
        pitch: the camera's greatest angle up or down, in degrees.
        attempts_per_group: places tried before the map is given up, which is an error.

    Raises:
        ConfigurationError: a value is out of range, or there are clips outside a group.
    """

    examples = "clips"
    pixels = "videos"
    module = "trainers.data.freedoom.render_routes"
    count_key = "clips_per_map"
    renderer_version = 1
    is_mapped = True
    name = "freedoom_route"
    class_names = ROUTE_CLASS_NAMES

    image_size: int = 48
    num_frames: int = 32
    tics_per_frame: int = 2
    turn_angle: tuple[float, float] = (35.0, 75.0)
    turn_frames: tuple[int, int] = (5, 8)
    least_gap: int = 8
    walk_speed: tuple[int, int] = (6, 14)
    still_share: float = 0.5
    pitch: float = 8.0
    attempts_per_group: int = 1000
    splits: dict[str, SplitOptions] = field(
        default_factory=lambda: {
            "train": SplitOptions(map_names(1, 20), 400),
            "validation": SplitOptions(map_names(21, 24), 240),
            "test": SplitOptions(map_names(25, 32), 240),
        }
    )

    def __post_init__(self) -> None:
        for name in ("image_size", "num_frames", "tics_per_frame", "least_gap"):
            check_positive(name, getattr(self, name))
        for name in ("turn_angle", "turn_frames", "walk_speed"):
            least, greatest = getattr(self, name)
            check(0 < least <= greatest, name, "0 < least <= greatest", getattr(self, name))
        check_share("still_share", self.still_share)
        # A step before the first turn and one after the second.
        needed = 2 * self.turn_frames[1] + self.least_gap + 3
        hint = "Or make turn_frames or least_gap smaller."
        check(self.num_frames >= needed, "num_frames", f"at least {needed}", self.num_frames, hint)
        group = len(ROUTE_TURNS)
        for name, split in self.splits.items():
            key = f"clips_per_map of the split {name!r}"
            check(split.count % group == 0, key, f"a multiple of {group}", split.count)

"""The rendered clips: what the labels say happens, whoever renders them."""

import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainers.data import sources
from trainers.data.freedoom import dataset
from trainers.data.freedoom.dataset import Arrays
from trainers.data.freedoom.dataset import cache_path
from trainers.data.freedoom.dataset import load_rendered
from trainers.data.freedoom.dataset import render_split
from trainers.data.freedoom.options import DIRECTIONS
from trainers.data.freedoom.options import MOTION_CLASS_NAMES
from trainers.data.freedoom.options import MOTION_NAMES
from trainers.data.freedoom.options import MotionOptions
from trainers.data.freedoom.options import SplitOptions
from trainers.data.freedoom.player import FreedoomWalk
from trainers.data.freedoom.player import expected_path
from trainers.data.freedoom.render_clips import label_of
from trainers.data.freedoom.render_clips import render_map
from trainers.data.sources import make_source
from trainers.utils.cache import checksum_path
from trainers.utils.errors import ConfigurationError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "motion_small.npz"
SMALL_SPLITS = {"train": SplitOptions(("MAP02", "MAP11"), 9)}
SMALL = MotionOptions(num_frames=4, tics_per_frame=4, image_size=16, splits=SMALL_SPLITS)
STILL = MOTION_CLASS_NAMES.index("still")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def clips() -> Arrays:
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        return dict(arrays)


def test_no_map_belongs_to_two_splits() -> None:
    splits = MotionOptions().splits
    maps = [name for split in splits.values() for name in split.maps]
    assert len(maps) == len(set(maps)) == 32


def test_every_class_has_equally_many_clips() -> None:
    with pytest.raises(ConfigurationError, match="multiple of 9.*received 10"):
        MotionOptions(splits={"train": SplitOptions(("MAP01",), 10)})
    MotionOptions(multi_label=True, splits={"train": SplitOptions(("MAP01",), 10)})


def test_fingerprint_depends_on_everything_that_changes_the_bytes() -> None:
    prints = {
        MotionOptions().fingerprint("train", "1.0"),
        MotionOptions().fingerprint("test", "1.0"),
        MotionOptions().fingerprint("train", "1.1"),
        MotionOptions(seed=1).fingerprint("train", "1.0"),
        MotionOptions(num_frames=8).fingerprint("train", "1.0"),
        MotionOptions(multi_label=True).fingerprint("train", "1.0"),
    }
    assert len(prints) == 6


@pytest.mark.parametrize(
    ("multi_label", "expected"),
    [
        (False, ["2571e8e970181b64", "ea977f0580869154", "49bf45b5596a1cd6"]),
        (True, ["c8a9c97109fd9331", "6f48ff31e342f411", "ef9d0ace8d898d21"]),
    ],
)
def test_cache_keys_are_those_of_earlier_versions(multi_label: bool, expected: list[str]) -> None:
    """Or everybody would render the sets again: raise the version then."""
    options = MotionOptions(multi_label=multi_label)
    assert [options.fingerprint(split, "1.3.2") for split in sources.SPLITS] == expected


def test_options_survive_the_command_line() -> None:
    options = MotionOptions(multi_label=True, pitch=0.1, splits={})
    assert MotionOptions.from_json(options.to_json()) == options


def test_labels_of_directions() -> None:
    assert label_of(np.zeros(4, np.int64), False) == STILL
    for motion in MOTION_NAMES:
        directions = np.zeros(4, np.int64)
        axis, sign = DIRECTIONS[motion]
        directions[axis] = sign
        assert MOTION_CLASS_NAMES[int(label_of(directions, False))] == motion  # type: ignore[call-overload]
        assert label_of(directions, True) == [float(name == motion) for name in MOTION_NAMES]
    several = label_of(np.array([1, -1, 0, 1]), True)
    assert several == [1, 0, 1, 0, 0, 0, 1, 0]


def test_path_of_each_motion_goes_where_its_name_says() -> None:
    """Seen by a player who looks north: east is to the right."""
    start = np.array([0.0, 0.0, 90.0, 0.0])
    speed = 10.0
    expected = {
        "forward": (1, 1),
        "backward": (1, -1),
        "strafe_left": (0, -1),
        "strafe_right": (0, 1),
        "turn_left": (2, 1),
        "turn_right": (2, -1),
        "look_up": (3, -1),
        "look_down": (3, 1),
    }
    for motion, (coordinate, sign) in expected.items():
        action = np.zeros(4)
        axis, direction = DIRECTIONS[motion]
        action[axis] = direction * speed
        change = expected_path(start, action, 5)[-1] - start
        assert change[coordinate] * sign > 1.0, motion
        assert np.abs(np.delete(change, coordinate)).max() < 1e-9, motion


def test_path_ends_at_a_constant_speed() -> None:
    path = expected_path(np.zeros(4), np.array([18.0, 0.0, 0.0, 0.0]), 200)
    speed = path[-1, 0] - path[-2, 0]
    assert math.isclose(speed, 18.0 / 32.0 / (1.0 - 0.90625), rel_tol=1e-6)


def test_engine_follows_the_path_or_there_is_no_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)
    walk = FreedoomWalk("MAP02", seed=3)
    action = np.array([21.0, 0.0, 0.0, 0.0])
    films = []
    for angle in range(0, 360, 15):  # all around: somewhere there is a wall, elsewhere room
        assert walk.stand(walk.places[0], angle, 0.0)
        start = walk.pose()
        film = walk.film(action, num_frames=2, tics_per_frame=10, tics_before=5)
        distance = math.hypot(*(walk.pose()[:2] - start[:2]))
        free = math.hypot(*(expected_path(start, action, 15)[-1] - start)[:2])
        assert film is None or abs(distance - free) <= 1.0
        films.append(film is not None)
    walk.close()
    assert any(films)
    assert not all(films)


@pytest.mark.slow
def test_rendering_does_not_depend_on_the_number_of_workers() -> None:
    pytest.importorskip("vizdoom")
    one = render_split("train", SMALL, workers=1)
    two = render_split("train", SMALL, workers=2)
    assert one["videos"].shape == (18, 4, 16, 16, 3)
    assert np.bincount(one["labels"]).tolist() == [2] * 9
    for name in ("videos", "labels"):
        assert one[name].tobytes() == two[name].tobytes()


def test_bytes_are_those_of_earlier_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: Arrays
) -> None:
    if pytest.importorskip("vizdoom").__version__ != "1.3.2":
        pytest.skip("the fixture was rendered by vizdoom 1.3.2")
    monkeypatch.chdir(tmp_path)
    options = MotionOptions(num_frames=8, tics_per_frame=4, image_size=32)
    rendered = render_map("MAP02", 18, options)
    for name, array in rendered.items():
        np.testing.assert_array_equal(array, clips[name][:18])


def test_several_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)
    options = MotionOptions(multi_label=True, num_frames=2, tics_per_frame=8, image_size=16)
    labels = render_map("MAP11", 20, options)["labels"]
    assert labels.dtype == np.float32
    assert labels.shape == (20, 8)
    opposites = labels.reshape(20, 4, 2).sum(axis=-1)
    assert opposites.max() == 1.0  # nobody goes forward and backward at once
    assert (labels.sum(axis=1) > 1).any()


def test_a_map_without_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)
    # No map is wide enough for a walk straight on of a minute and a half.
    options = MotionOptions(num_frames=2, tics_per_frame=3000, attempts_per_clip=2)
    with pytest.raises(RuntimeError, match="MAP02.*raise attempts_per_clip"):
        render_map("MAP02", 9, options)


def test_cache_is_used_and_damage_repaired(
    cache: Path,
    clips: Arrays,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("vizdoom")
    calls = []

    def render(*arguments: object) -> Arrays:
        calls.append(arguments)
        return clips

    monkeypatch.setattr(dataset, "render_split", render)
    load_rendered("train", SMALL)
    again = load_rendered("train", SMALL)
    assert len(calls) == 1
    np.testing.assert_array_equal(again["videos"], clips["videos"])
    path = cache_path("train", SMALL)
    assert cache in path.parents

    checksum_path(path).write_text("0" * 64 + "\n")
    capsys.readouterr()
    repaired = load_rendered("train", SMALL)
    assert len(calls) == 2
    assert "damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(repaired["labels"], clips["labels"])


def test_unknown_split_names_the_known_ones(cache: Path) -> None:
    with pytest.raises(ConfigurationError, match="freedoom_motion.*'test', 'train', 'validation'"):
        load_rendered("val", MotionOptions())


@pytest.mark.parametrize("name", ["freedoom_motion", "freedoom_multilabel"])
def test_source(name: str, clips: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(split: str, options: MotionOptions) -> Arrays:
        if not options.multi_label:
            return clips
        return {**clips, "labels": np.eye(9, dtype=np.float32)[clips["labels"]][:, 1:]}

    monkeypatch.setattr(sources, "load_rendered", load)
    source = make_source(name, "test", None)
    assert (source.name, source.split, source.num_examples) == (name, "test", 36)
    names = MOTION_CLASS_NAMES if name == "freedoom_motion" else MOTION_NAMES
    assert source.class_names == names
    example = source.load(tf.constant(20, tf.int64))
    assert example["label"].shape == (() if name == "freedoom_motion" else (8,))
    np.testing.assert_array_equal(example["video"], clips["videos"][20])


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_mirror_swaps_left_and_right(multi_label: bool) -> None:
    options = MotionOptions(multi_label=multi_label)
    names = options.class_names
    mirrored = {name: names[options.mirrored_classes[i]] for i, name in enumerate(names)}
    swapped = {name: other for name, other in mirrored.items() if name != other}
    assert swapped == {
        "strafe_left": "strafe_right",
        "strafe_right": "strafe_left",
        "turn_left": "turn_right",
        "turn_right": "turn_left",
    }


def test_fixture_has_every_class(clips: Arrays) -> None:
    assert clips["videos"].dtype == np.uint8
    assert clips["videos"].shape == (36, 8, 32, 32, 3)
    assert np.bincount(clips["labels"]).tolist() == [4] * len(MOTION_CLASS_NAMES)
    # Lamps flicker and monsters fidget while the player does not move; walls stay.
    unchanged = (clips["videos"] == clips["videos"][:, :1]).all(axis=(1, 4)).mean(axis=(1, 2))
    still = clips["labels"] == STILL
    assert unchanged[still].min() > 0.5
    assert unchanged[~still].max() < 0.2


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [
        ("still", 2, 0),
        ("still", 1, 0),
        ("strafe_left", 2, 1),
        ("strafe_right", 2, -1),
        ("turn_left", 2, 1),
        ("turn_right", 2, -1),
        ("look_up", 1, 1),
        ("look_down", 1, -1),
    ],
)
def test_picture_moves_against_the_player_in_the_fixture(
    clips: Arrays, motion: str, axis: int, sign: int
) -> None:
    """Who turns left sees the room wander to the right, and so on."""
    chosen = clips["videos"][clips["labels"] == MOTION_CLASS_NAMES.index(motion)]
    shifts = [_shift(video, axis) for video in chosen]
    assert np.sign(np.median(shifts)) == sign, shifts


def _shift(video: np.ndarray, axis: int) -> int:
    """Finds by how many pixels the picture moves from frame to frame.

    Args:
        video: (frames, size, size, 3) uint8.
        axis: 1 for downwards, 2 for to the right.
    """
    frames = video.mean(axis=-1)
    frames -= frames.mean(axis=(1, 2), keepdims=True)
    frames = np.moveaxis(frames, axis, -1)
    shifts = range(-6, 7)
    errors = [
        np.abs(np.roll(frames[:-1], shift, axis=-1) - frames[1:])[..., 6:-6].mean()
        for shift in shifts
    ]
    return shifts[int(np.argmin(errors))]

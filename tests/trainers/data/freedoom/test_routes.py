"""The clips of two turns: what is recorded of them happens, and no part of a clip tells its label.

Why eight consecutive frames are at chance follows from three facts, each of which has a test: no
eight consecutive frames show both turns; of the clips of a group that share one turn, whichever,
half have each label; and those clips look alike as far as the other turn is not seen.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainers.data.freedoom.dataset import STANDARD_SETS
from trainers.data.freedoom.dataset import load_rendered
from trainers.data.freedoom.dataset import render_split
from trainers.data.freedoom.options import SplitOptions
from trainers.data.freedoom.player import expected_path
from trainers.data.freedoom.render_routes import Route
from trainers.data.freedoom.render_routes import draw_route
from trainers.data.freedoom.render_routes import render_map
from trainers.data.freedoom.task_options import ROUTE_CLASS_NAMES
from trainers.data.freedoom.task_options import ROUTE_TURNS
from trainers.data.freedoom.task_options import RouteOptions
from trainers.data.sources import make_source
from trainers.utils.array_cache import Arrays
from trainers.utils.errors import ConfigurationError

WINDOW = 8  # consecutive frames that must not tell the label
SMALL = RouteOptions(image_size=16, splits={"train": SplitOptions(("MAP02", "MAP11"), 4)})


@pytest.fixture(scope="module")
def clips() -> Arrays:
    """Three groups of clips."""
    pytest.importorskip("vizdoom")
    options = RouteOptions(splits={"train": SplitOptions(("MAP11",), 12)})
    return render_split("train", options)


@pytest.fixture(scope="module")
def routes() -> list[Route]:
    rng = np.random.default_rng(0)
    return [draw_route(RouteOptions(), rng) for _ in range(400)]


def test_no_map_belongs_to_two_splits() -> None:
    splits = RouteOptions().splits
    maps = [name for split in splits.values() for name in split.maps]
    assert len(maps) == len(set(maps)) == 32


def test_fingerprint_depends_on_everything_that_changes_the_bytes() -> None:
    prints = {
        RouteOptions().fingerprint("train", "1.0"),
        RouteOptions().fingerprint("test", "1.0"),
        RouteOptions().fingerprint("train", "1.1"),
        RouteOptions(seed=1).fingerprint("train", "1.0"),
        RouteOptions(least_gap=9).fingerprint("train", "1.0"),
    }
    assert len(prints) == 5


def test_options_survive_the_command_line() -> None:
    options = RouteOptions(seed=3, pitch=0.1, turn_frames=(4, 6), splits={})
    assert RouteOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 26}, "num_frames must be at least 27. Received: 26. Or make turn_frames"),
        ({"turn_angle": (75.0, 35.0)}, "turn_angle must be 0 < least <= greatest"),
        ({"turn_frames": (0, 3)}, "turn_frames must be 0 < least <= greatest"),
        ({"walk_speed": (0, 3)}, "walk_speed must be"),
        ({"least_gap": 0}, "least_gap must be"),
        ({"still_share": 1.5}, "still_share must be from 0 to 1"),
        ({"image_size": 0}, "image_size must be"),
        ({"splits": {"test": SplitOptions(("MAP01",), 6)}}, "'test' must be a multiple of 4"),
    ],
)
def test_wrong_options(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RouteOptions(**values)


def test_drawn_routes_vary(routes: list[Route]) -> None:
    options = RouteOptions()
    turns = np.array([route.turns for route in routes])
    angles = np.array([route.angles for route in routes])
    pushes = np.array([route.pushes for route in routes])
    lengths, gaps = turns[:, :, 1] - turns[:, :, 0], turns[:, 1, 0] - turns[:, 0, 1]
    assert set(lengths.ravel()) == set(range(5, 9))
    assert turns.min() == 1 and turns.max() == options.num_frames - 2
    assert gaps.min() == options.least_gap and gaps.max() >= 14
    assert angles.min() < 37 and angles.max() > 73
    assert 0.4 < (pushes == 0).mean() < 0.6
    assert set(pushes[pushes > 0]) == set(range(6, 15))


def test_no_window_shows_both_turns(routes: list[Route], clips: Arrays) -> None:
    for turns in (*(route.turns for route in routes), *clips["turns"]):
        frames = [set(range(start, end + 1)) for start, end in turns]
        for first in range(RouteOptions().num_frames - WINDOW + 1):
            window = set(range(first, first + WINDOW))
            assert not (window & frames[0] and window & frames[1])


def test_actions_turn_and_walk_as_the_route_says() -> None:
    turns = np.array([[2, 7], [16, 22]])
    route = Route(turns, np.array([40.0, 70.0]), np.array([10, 8]), pitch=1.0)
    for directions in ROUTE_TURNS:
        actions = route.actions(directions, num_frames=32, tics_per_frame=2)
        path = expected_path(np.zeros(4), np.repeat(actions[1:], 2, axis=0), 62)
        angles = np.concatenate([[0.0], path[1::2, 2]])  # at each frame
        np.testing.assert_allclose(angles[:3], 0.0)
        np.testing.assert_allclose(angles[7:17], 40.0 * directions[0])
        np.testing.assert_allclose(angles[22:], 40.0 * directions[0] + 70.0 * directions[1])
        steps = np.linalg.norm(np.diff(path[1::2, :2], axis=0), axis=1)
        assert not steps[:6].any()  # up to the end of the first turn
        assert steps[14] > steps[8] > 0.5 and steps[-1] > steps[20]
    stops = expected_path(np.zeros(4), np.repeat([[14.0, 0, 0, 0], [0] * 4], [20, 60], axis=0), 80)
    assert stops[-1, 0] == stops[-5, 0] > stops[19, 0]  # comes to rest, as in the engine


def test_arrays(clips: Arrays) -> None:
    assert clips["videos"].dtype == np.uint8
    assert clips["videos"].shape == (12, 32, 48, 48, 3)
    assert clips["turns"].shape == (12, 2, 2)
    assert clips["angles"].dtype == np.float32
    signs = np.sign(clips["angles"])
    np.testing.assert_array_equal(signs, np.tile(ROUTE_TURNS, (3, 1)))
    same_way = clips["labels"] == ROUTE_CLASS_NAMES.index("same way")
    np.testing.assert_array_equal(same_way, signs[:, 0] == signs[:, 1])


def test_one_turn_says_nothing_of_the_label(clips: Arrays) -> None:
    for group in range(0, 12, 4):
        labels, signs = clips["labels"][group:][:4], np.sign(clips["angles"][group:][:4])
        for turn in (0, 1):
            for sign in (1, -1):
                assert sorted(labels[signs[:, turn] == sign]) == [0, 1]
        # When the turns are, and how wide, is the same in all four.
        assert len(np.unique(clips["turns"][group:][:4], axis=0)) == 1
        assert len(np.unique(np.abs(clips["angles"][group:][:4]), axis=0)) == 1


def test_clips_of_a_group_look_alike_where_one_turn_is_the_same(clips: Arrays) -> None:
    videos = clips["videos"].astype(np.float64)

    def difference(one: int, other: int, frames: slice) -> float:
        return float(np.abs(videos[one, frames] - videos[other, frames]).mean())

    for group in range(0, 12, 4):
        (_, first_end), (second, _) = clips["turns"][group]
        for turn, frames in ((0, slice(0, second + 1)), (1, slice(first_end, None))):
            alike, different = [], []
            for one, other in itertools.combinations(range(4), 2):
                found = difference(group + one, group + other, frames)
                same = ROUTE_TURNS[one][turn] == ROUTE_TURNS[other][turn]
                (alike if same else different).append(found)
            # What is left is what moves in the map: flames, lamps, monsters that fidget.
            assert max(alike) < min(2.5, min(different) / 2)


def test_picture_moves_against_the_turns(clips: Arrays) -> None:
    """Who turns left sees the room wander to the right."""
    agree = []
    for video, turns, angles in zip(clips["videos"], clips["turns"], clips["angles"], strict=True):
        for (start, end), angle in zip(turns, angles, strict=True):
            agree.append(_shift(video[start : end + 1]) * angle > 0)
    assert np.mean(agree) > 0.9


def _shift(frames: np.ndarray) -> int:
    """Finds by how many pixels the picture moves to the right from frame to frame."""
    grey = frames.mean(axis=-1)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    shifts = range(-6, 7)
    errors = [np.abs(np.roll(grey[:-1], s, axis=-1) - grey[1:])[..., 6:-6].mean() for s in shifts]
    return shifts[int(np.argmin(errors))]


@pytest.mark.slow
def test_rendering_does_not_depend_on_the_number_of_workers() -> None:
    pytest.importorskip("vizdoom")
    one = render_split("train", SMALL, workers=1)
    two = render_split("train", SMALL, workers=2)
    assert one.keys() == two.keys() == {"videos", "labels", "turns", "angles"}
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes()


def test_a_map_without_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)
    # No map is wide enough for a walk of a minute and a half.
    options = RouteOptions(tics_per_frame=100, still_share=0.0, attempts_per_group=2)
    with pytest.raises(RuntimeError, match="MAP02.*raise attempts_per_group"):
        render_map("MAP02", 4, options)


def test_source_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path))
    monkeypatch.setitem(STANDARD_SETS, "freedoom_route", SMALL)
    source = make_source("freedoom_route", "train", None)
    arrays = load_rendered("train", SMALL)
    assert isinstance(arrays["videos"], np.memmap)
    assert (source.num_examples, source.class_names) == (8, ROUTE_CLASS_NAMES)
    example = source.load(tf.constant(5, tf.int64))
    np.testing.assert_array_equal(example["video"], arrays["videos"][5])
    assert example["label"] == arrays["labels"][5] == 1
    assert "mirrored_label" not in example  # a mirror turns both turns round

"""The rendered scenes: one kind of thing, small in view, with its mask, and no shortcut."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainers.data.freedoom.dataset import STANDARD_SETS
from trainers.data.freedoom.dataset import cache_path
from trainers.data.freedoom.dataset import load_rendered
from trainers.data.freedoom.dataset import render_split
from trainers.data.freedoom.options import SplitOptions
from trainers.data.freedoom.render_scenes import render_map
from trainers.data.freedoom.task_options import SCENE_CLASS_NAMES
from trainers.data.freedoom.task_options import SceneOptions
from trainers.data.sources import make_source
from trainers.utils.array_cache import Arrays
from trainers.utils.errors import ConfigurationError

SMALL = SceneOptions(splits={"train": SplitOptions(("MAP01", "MAP02"), 1)})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    pytest.importorskip("vizdoom")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("engine"))
        return render_map("MAP11", 3, SceneOptions())


def test_no_map_belongs_to_two_splits() -> None:
    splits = SceneOptions().splits
    maps = [name for split in splits.values() for name in split.maps]
    assert len(maps) == len(set(maps)) == 32


def test_fingerprint_depends_on_everything_that_changes_the_bytes() -> None:
    prints = {
        SceneOptions().fingerprint("train", "1.0"),
        SceneOptions().fingerprint("test", "1.0"),
        SceneOptions().fingerprint("train", "1.1"),
        SceneOptions(seed=1).fingerprint("train", "1.0"),
        SceneOptions(object_size=(8, 23)).fingerprint("train", "1.0"),
    }
    assert len(prints) == 5


def test_options_survive_the_command_line() -> None:
    options = SceneOptions(seed=3, turn=0.1, splits={})
    assert SceneOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"object_size": (0, 24)}, "object_size must be 1 <= least <= greatest <= 118"),
        ({"object_size": (24, 8)}, r"object_size must be .*\(24, 8\)"),
        ({"distance": (0.0, 10.0)}, "distance must be"),
        ({"turn": 50.0}, "turn must be from 0 to 44 degrees"),
        ({"pitch": -1.0}, "pitch must be from 0 to 30 degrees"),
        ({"attempts_per_image": 0}, "attempts_per_image must be"),
    ],
)
def test_wrong_options(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SceneOptions(**values)


def test_things_are_whole_and_small_and_on_their_masks(scenes: Arrays) -> None:
    images, masks, labels = scenes["images"], scenes["masks"], scenes["labels"]
    assert images.dtype == masks.dtype == np.uint8
    assert images.shape == (len(labels), 120, 160, 3)
    assert masks.shape == (len(labels), 120, 160)
    assert len(labels) > 10
    assert len(set(labels)) > 4
    assert np.bincount(labels).max() <= 3
    assert set(np.unique(masks)) == {0, 1}
    for image, mask in zip(images, masks.astype(bool), strict=True):
        assert mask.any()
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
        assert image.mean() >= 12.0 and image[mask].mean() >= 12.0
    # One thing at least is 8 pixels long; several may lie side by side.
    rows, columns = masks.any(axis=2).sum(axis=1), masks.any(axis=1).sum(axis=1)
    assert np.maximum(rows, columns).min() >= 8
    assert np.median(np.maximum(rows, columns)) <= 24


def test_things_lie_anywhere(scenes: Arrays) -> None:
    centres = [np.argwhere(mask).mean(axis=0) for mask in scenes["masks"]]
    assert np.std(centres, axis=0).min() > 8.0


def test_rendering_does_not_depend_on_the_number_of_workers() -> None:
    pytest.importorskip("vizdoom")
    one = render_split("train", SMALL, workers=1)
    two = render_split("train", SMALL, workers=2)
    assert len(one["labels"]) > 5
    for name in ("images", "masks", "labels"):
        assert one[name].tobytes() == two[name].tobytes()


def test_source_reads_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vizdoom")
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path))
    monkeypatch.setitem(STANDARD_SETS, "freedoom_scenes", SMALL)
    source = make_source("freedoom_scenes", "train", None)
    assert "2 of 2" in capfd.readouterr().err
    arrays = load_rendered("train", SMALL)
    assert capfd.readouterr().err == ""  # not rendered again
    assert isinstance(arrays["masks"], np.memmap)
    assert cache_path("train", SMALL).is_dir()
    assert (source.num_examples, source.class_names) == (len(arrays["labels"]), SCENE_CLASS_NAMES)
    example = source.load(tf.constant(2, tf.int64))
    np.testing.assert_array_equal(example["image"], arrays["images"][2])
    assert example["label"] == arrays["labels"][2]


@pytest.mark.slow
def test_no_shortcut() -> None:
    """Simple classifiers are near the share of the largest class, which needs no look.

    Answers on 150 images or more have a standard deviation below 0.03 at such a share; the bound
    is five of them above it. What is there to see: how maps are lit, and which things they hold.
    """
    pytest.importorskip("vizdoom")
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    splits = {
        "train": SplitOptions(("MAP01", "MAP05", "MAP11", "MAP15"), 20),
        "test": SplitOptions(("MAP26", "MAP28", "MAP29"), 20),
    }
    options = SceneOptions(splits=splits, attempts_per_image=20)
    train, test = render_split("train", options), render_split("test", options)
    labels = test["labels"]
    assert len(labels) >= 150
    bound = np.bincount(labels).max() / len(labels) + 0.15

    def thumbnails(images: np.ndarray) -> np.ndarray:
        return images.reshape(-1, 8, 15, 8, 20, 3).mean(axis=(2, 4)).reshape(-1, 192) / 255

    def mean_color(images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2)) / 255

    for features in (thumbnails, mean_color):
        for classifier in (KNeighborsClassifier(5), LogisticRegression(max_iter=200)):
            classifier.fit(features(train["images"]), train["labels"])
            score = classifier.score(features(test["images"]), labels)
            assert score < bound, (features.__name__, classifier, score)

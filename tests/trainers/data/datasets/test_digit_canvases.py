"""Canvases of digits: what lies on them, which digits they are made of, and no shortcut."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.mnist_files import NUM_TRAIN
from tests.helpers.mnist_files import real_digits
from tests.helpers.mnist_files import write_mnist
from trainers.data.datasets import digit_canvases
from trainers.data.datasets.digit_canvases import STANDARD_CANVASES
from trainers.data.datasets.digit_canvases import CanvasOptions
from trainers.data.datasets.digit_canvases import ClutterOptions
from trainers.data.datasets.digit_canvases import RelationOptions
from trainers.data.datasets.digit_canvases import draw_canvases
from trainers.data.datasets.digit_canvases import load_canvases
from trainers.data.datasets.mnist import Digits
from trainers.data.sources import SPLITS
from trainers.data.sources import make_source
from trainers.utils.errors import ConfigurationError

DIGITS = real_digits()
COUNTS = {"train": 25, "validation": 8, "test": 8}
FAMILIES = [ClutterOptions(counts=COUNTS), RelationOptions(counts=COUNTS)]
IDS = [options.family for options in FAMILIES]
# Ten digits whose pictures say which they are: squares of a brightness each.
FLAT = Digits(
    np.broadcast_to(np.arange(100, 200, 10, np.uint8)[:, None, None], (10, 28, 28)),
    np.arange(10),
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data_dir(tmp_path: Path) -> str:
    return str(write_mnist(tmp_path / "mnist", DIGITS))


def draw(options: CanvasOptions, count: int, split: str = "train") -> Any:
    arrays = draw_canvases(options, DIGITS, split, 0, count)
    return arrays["images"], arrays["labels"]


def test_the_standard_sets() -> None:
    facts = {name: (each.family, each.canvas_size) for name, each in STANDARD_CANVASES.items()}
    assert facts == {
        "cluttered_digits": ("cluttered_digits", 64),
        "cluttered_digits_96": ("cluttered_digits", 96),
        "digit_relation": ("digit_relation", 96),
    }
    for options in STANDARD_CANVASES.values():
        assert options.counts == {"train": 50_000, "validation": 2_000, "test": 4_000}


def test_one_digit_and_fragments_on_a_canvas() -> None:
    sides, tops = set(), set()
    for number in range(60):
        options = ClutterOptions(num_fragments=0)
        arrays = draw_canvases(options, FLAT, "train", number, number + 1)
        (canvas,), (label,) = arrays["images"], arrays["labels"]
        rows, columns = np.nonzero(canvas)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert height == width and 28 <= height <= 39
        assert set(canvas[rows, columns]) == {FLAT.images[label, 0, 0]}
        sides.add(height)
        tops.add(rows[0])
    assert sides == set(range(28, 40))
    assert min(tops) < 8 and max(tops) > 20  # anywhere

    images, _ = draw(ClutterOptions(digit_size=(4, 4)), 40)
    bare, _ = draw(ClutterOptions(digit_size=(4, 4), num_fragments=0), 40)
    covered = (images > 0).mean()
    assert 0.02 < covered - (bare > 0).mean() <= 6 * 64 / 64**2


def test_three_of_five_digits_are_alike() -> None:
    options = RelationOptions(num_strokes=0)
    for number in range(40):
        arrays = draw_canvases(options, FLAT, "train", number, number + 1)
        (canvas,), (label,) = arrays["images"], arrays["labels"]
        values, areas = np.unique(canvas[canvas > 0], return_counts=True)
        shown = (values - 100) // 10
        assert len(shown) == 3
        # Squares of 24 to 32 pixels, none of which hides another.
        of_label = areas[shown == label][0]
        others = areas[shown != label]
        assert 3 * 24**2 <= of_label <= 3 * 32**2
        assert all(24 <= np.sqrt(area) <= 32 and np.sqrt(area) % 1 == 0 for area in others)


def test_strokes_are_noise_beside_the_digits() -> None:
    blank = dataclasses.replace(FLAT, images=np.zeros((10, 28, 28), np.uint8))
    options = RelationOptions()
    images = draw_canvases(options, blank, "train", 0, 50)["images"]
    assert images[images > 0].min() >= 128
    assert 0.01 < (images > 0).mean() < 8 * 2 * 2 * 13 / 96**2


@pytest.mark.parametrize("options", FAMILIES, ids=IDS)
def test_canvases_depend_on_seed_split_and_number(options: CanvasOptions) -> None:
    images, labels = draw(options, 6)
    again, _ = draw(options, 6)
    np.testing.assert_array_equal(images, again)
    part = draw_canvases(options, DIGITS, "train", 4, 6)
    np.testing.assert_array_equal(part["images"], images[4:])
    np.testing.assert_array_equal(part["labels"], labels[4:])
    others = [
        images[1],
        draw(dataclasses.replace(options, seed=1), 1)[0][0],
        draw(options, 1, "validation")[0][0],
    ]
    assert all((other != images[0]).any() for other in others)


@pytest.mark.parametrize("options", FAMILIES, ids=IDS)
def test_worker_processes_draw_the_same(
    options: CanvasOptions, cache: Path, data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digit_canvases, "CANVASES_PER_JOB", 10)
    arrays = load_canvases("train", data_dir, options)
    digits = Digits(DIGITS.images[:1_250], DIGITS.labels[:1_250])
    expected = draw_canvases(options, digits, "train", 0, 25)
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_splits_are_made_of_different_digits(cache: Path, tmp_path: Path) -> None:
    """A split changes if its digits do, and not if others do."""
    options = FAMILIES[0]
    inverted = 255 - DIGITS.images
    places = {"train": slice(1_250), "validation": slice(1_250, NUM_TRAIN)}
    places["test"] = slice(NUM_TRAIN, None)
    original = str(write_mnist(tmp_path / "original", DIGITS))
    before = {split: load_canvases(split, original, options)["images"] for split in SPLITS}
    for changed, place in places.items():
        images = DIGITS.images.copy()
        images[place] = inverted[place]
        digits = dataclasses.replace(DIGITS, images=images)
        folder = str(write_mnist(tmp_path / changed, digits))
        for split in SPLITS:
            same = np.array_equal(load_canvases(split, folder, options)["images"], before[split])
            assert same == (split != changed), (split, changed)


def test_the_cache_is_used(cache: Path, data_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = FAMILIES[0]
    first = load_canvases("test", data_dir, options)
    monkeypatch.setattr(digit_canvases, "_jobs", lambda *arguments: pytest.fail("drawn again"))
    again = load_canvases("test", data_dir, options)
    assert isinstance(again["images"], np.memmap)
    np.testing.assert_array_equal(first["images"], again["images"])


def test_the_cache_key_depends_on_everything_that_changes_the_bytes() -> None:
    other = dataclasses.replace(DIGITS, labels=DIGITS.labels[::-1])
    prints = {
        ClutterOptions().fingerprint("train", DIGITS),
        ClutterOptions().fingerprint("test", DIGITS),
        ClutterOptions().fingerprint("train", other),
        ClutterOptions(seed=1).fingerprint("train", DIGITS),
        ClutterOptions(canvas_size=96).fingerprint("train", DIGITS),
        ClutterOptions(num_fragments=5).fingerprint("train", DIGITS),
        ClutterOptions(counts={"train": 1, "test": 1}).fingerprint("train", DIGITS),
    }
    assert len(prints) == 7
    # The size of another split changes nothing in this one.
    counts = {"train": 50_000, "test": 3}
    same = ClutterOptions(counts=counts).fingerprint("train", DIGITS)
    assert same == ClutterOptions().fingerprint("train", DIGITS)


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        (ClutterOptions, {"seed": -1}, "seed must be"),
        (ClutterOptions, {"canvas_size": 0}, "canvas_size must be"),
        (ClutterOptions, {"digit_size": (28, 20)}, r"digit_size must be .* <= 64.*\(28, 20\)"),
        (ClutterOptions, {"digit_size": (20, 65)}, "digit_size must be .* <= 64"),
        (ClutterOptions, {"num_fragments": -1}, "num_fragments must be"),
        (ClutterOptions, {"fragment_size": 21}, "fragment_size must be from 1 to 20"),
        (ClutterOptions, {"counts": {"valid": 3}}, "counts must be .*train, validation, test"),
        (ClutterOptions, {"counts": {"train": 0}}, r"counts\['train'\] must be"),
        (RelationOptions, {"canvas_size": 64}, "digit_size must be .* <= 21, for a canvas of 64"),
        (RelationOptions, {"num_strokes": -1}, "num_strokes must be"),
        (RelationOptions, {"stroke_length": 0}, "stroke_length must be"),
    ],
)
def test_wrong_options(family: type[CanvasOptions], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        family(**values)


def test_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="one of train, validation, test.*'val'"):
        load_canvases("val", None, FAMILIES[0])


def test_source(cache: Path, data_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = FAMILIES[1]
    monkeypatch.setitem(STANDARD_CANVASES, "digit_relation", options)
    source = make_source("digit_relation", "validation", data_dir)
    assert (source.name, source.split, source.num_examples) == ("digit_relation", "validation", 8)
    assert source.class_names == tuple("0123456789")
    arrays = load_canvases("validation", data_dir, options)
    example = source.load(tf.constant(5, tf.int64))
    grey = np.repeat(arrays["images"][5][:, :, None], 3, axis=2)
    np.testing.assert_array_equal(example["image"], grey)
    assert example["label"] == arrays["labels"][5]


def test_source_without_mnist(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", os.fspath(tmp_path))
    with pytest.raises(ConfigurationError, match="MNIST's four IDX files"):
        make_source("cluttered_digits", "train", None)


@pytest.mark.parametrize("name", STANDARD_CANVASES)
def test_no_shortcut(name: str) -> None:
    """Simple classifiers are near chance, 0.1.

    The counted answers of 1,000 canvases have a standard deviation of 0.01 at chance. The bound
    leaves room for what is there: the ink of a one is less than that of an eight.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    options = STANDARD_CANVASES[name]
    images, labels = draw(options, 2_000)
    test_images, test_labels = draw(options, 1_000, "test")
    assert np.bincount(test_labels, minlength=10).min() > 60  # balanced: no class is a good guess
    size, cell = options.canvas_size, options.canvas_size // 4

    def thumbnails(canvases: np.ndarray) -> np.ndarray:
        return canvases.reshape(-1, 4, cell, 4, cell).mean(axis=(2, 4)).reshape(-1, 16) / 255

    def brightness(canvases: np.ndarray) -> np.ndarray:
        return canvases.reshape(-1, size * size).mean(axis=1, keepdims=True)

    for features in (thumbnails, brightness):
        for classifier in (KNeighborsClassifier(15), LogisticRegression(max_iter=200)):
            classifier.fit(features(images), labels)
            score = classifier.score(features(test_images), test_labels)
            assert score < 0.2, (features.__name__, classifier, score)

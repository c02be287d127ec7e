"""The rendered set: deterministic, cached, and clear when something is missing."""

import builtins
from pathlib import Path

import numpy as np
import pytest

from trainers.data.freedoom import dataset
from trainers.data.freedoom.dataset import Arrays
from trainers.data.freedoom.dataset import cache_path
from trainers.data.freedoom.dataset import load_freedoom_objects
from trainers.data.freedoom.dataset import load_rendered
from trainers.data.freedoom.dataset import render_split
from trainers.data.freedoom.options import CLASS_NAMES
from trainers.data.freedoom.options import FreedoomOptions
from trainers.data.freedoom.options import SplitOptions
from trainers.data.freedoom.render_images import render_map
from trainers.data.sources import SPLITS
from trainers.utils.cache import checksum_path
from trainers.utils.errors import ConfigurationError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "freedoom_small.npz"
SMALL = FreedoomOptions(image_size=32, splits={"train": SplitOptions(("MAP01", "MAP02"), 2)})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path))
    return tmp_path


def test_no_map_belongs_to_two_splits() -> None:
    splits = FreedoomOptions().splits
    maps = [name for split in splits.values() for name in split.maps]
    assert len(maps) == len(set(maps)) == 32


def test_fingerprint_depends_on_everything_that_changes_the_bytes() -> None:
    prints = {
        FreedoomOptions().fingerprint("train", "1.0"),
        FreedoomOptions().fingerprint("test", "1.0"),
        FreedoomOptions().fingerprint("train", "1.1"),
        FreedoomOptions(seed=1).fingerprint("train", "1.0"),
        FreedoomOptions(image_size=32).fingerprint("train", "1.0"),
    }
    assert len(prints) == 5


def test_cache_keys_and_bytes_are_those_of_earlier_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or everybody would render the set again, or get another one: raise the version then."""
    prints = [FreedoomOptions().fingerprint(split, "1.3.2") for split in SPLITS]
    assert prints == ["3399d2eee4aa4b6e", "9c0a830753dc3822", "8dd4da1459eb4029"]
    if pytest.importorskip("vizdoom").__version__ != "1.3.2":
        pytest.skip("the fixture was rendered by vizdoom 1.3.2")
    monkeypatch.chdir(tmp_path)
    rendered = render_map("MAP07", 7, FreedoomOptions(image_size=32))
    count = len(rendered["labels"])
    assert count > 20
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        assert set(arrays) == set(rendered)
        for name, array in rendered.items():
            np.testing.assert_array_equal(array, arrays[name][:count])


def test_options_survive_the_command_line() -> None:
    options = FreedoomOptions(seed=3, turn=0.1, splits={})
    assert FreedoomOptions.from_json(options.to_json()) == options


def test_rendering_does_not_depend_on_the_number_of_workers() -> None:
    pytest.importorskip("vizdoom")
    one = render_split("train", SMALL, workers=1)
    two = render_split("train", SMALL, workers=2)
    assert len(one["labels"]) > 20
    assert one["images"].shape[1:] == (32, 32, 3)
    for name in ("images", "masks", "labels"):
        assert one[name].tobytes() == two[name].tobytes()


def test_cache_is_used_and_damage_repaired(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vizdoom")
    with np.load(FIXTURE) as arrays:
        rendered = dict(arrays)
    calls = []

    def render(*arguments: object) -> Arrays:
        calls.append(arguments)
        return rendered

    monkeypatch.setattr(dataset, "render_split", render)
    load_rendered("train", SMALL)
    again = load_rendered("train", SMALL)
    assert len(calls) == 1
    np.testing.assert_array_equal(again["masks"], rendered["masks"])

    path = cache_path("train", SMALL)
    assert cache in path.parents
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    repaired = load_rendered("train", SMALL)
    assert len(calls) == 2
    assert "damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(repaired["images"], rendered["images"])

    checksum_path(path).unlink()
    load_rendered("train", SMALL)
    assert len(calls) == 3
    assert not [name for name in path.parent.iterdir() if name.suffix == ".tmp"]


def test_images_of_the_standard_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(FIXTURE) as arrays:
        rendered = dict(arrays)
    monkeypatch.setattr(dataset, "load_rendered", lambda *arguments: rendered)
    assert vars(load_freedoom_objects("test")) == rendered


def test_unknown_split_names_the_known_ones(cache: Path) -> None:
    with pytest.raises(ConfigurationError, match="'test', 'train', 'validation'"):
        load_freedoom_objects("val")


def test_missing_engine_names_the_command(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *arguments: object, **keywords: object) -> object:
        if name == "vizdoom":
            raise ImportError("No module named 'vizdoom'")
        return real_import(name, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[demo\]'"):
        load_rendered("train", SMALL)


def test_fixture_has_every_class_and_sensible_masks() -> None:
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        images, labels, masks = (arrays[key] for key in ("images", "labels", "masks"))
    assert images.dtype == np.uint8
    assert images.shape == (len(labels), 32, 32, 3)
    assert set(labels) == set(range(len(CLASS_NAMES)))
    parts = masks.reshape(len(masks), -1).mean(axis=1)
    assert parts.min() > 0.02
    assert parts.max() < 0.9

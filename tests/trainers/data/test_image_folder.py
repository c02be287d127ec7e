"""Folders of images in both layouts, and every way to get them wrong."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainers.data.class_folders import split_of_file
from trainers.data.image_folder import ImageFolderSource
from trainers.data.sources import SPLITS
from trainers.data.sources import make_source
from trainers.errors import ConfigurationError


def write_images(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        image = np.full((4, 5, 3), number % 256, np.uint8)
        path = folder / f"{number:03d}.png"
        path.write_bytes(tf.io.encode_png(image).numpy())


@pytest.fixture
def split_folders(tmp_path: Path) -> Path:
    for split in ("train", "val", "test"):
        write_images(tmp_path / split / "dog", 2)
        write_images(tmp_path / split / "cat", 3)
    write_images(tmp_path / ".thumbnails", 1)
    (tmp_path / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    return tmp_path


@pytest.mark.parametrize("split", SPLITS)
def test_split_folders(split_folders: Path, split: str) -> None:
    source = make_source("folder", split, str(split_folders))
    assert source.num_examples == 5
    assert source.class_names == ("cat", "dog")
    examples = list(tf.data.Dataset.range(5).map(source.load).as_numpy_iterator())
    assert [example["label"] for example in examples] == [0, 0, 0, 1, 1]
    assert tf.io.decode_image(examples[1]["encoded"]).shape == (4, 5, 3)
    assert examples[1]["identity"].decode().endswith("cat/001.png")


def test_a_class_may_be_missing_from_test(split_folders: Path) -> None:
    for path in (split_folders / "test" / "cat").iterdir():
        path.unlink()
    (split_folders / "test" / "cat").rmdir()
    source = ImageFolderSource(str(split_folders), "test")
    assert source.class_names == ("cat", "dog")
    assert int(source.load(tf.constant(0, tf.int64))["label"]) == 1


def test_hashed_split_is_a_partition_and_follows_the_file(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 60)
    write_images(tmp_path / "dog", 60)
    before = {}
    for split in SPLITS:
        source = ImageFolderSource(str(tmp_path), split)
        for index in range(source.num_examples):
            name = source.load(tf.constant(index, tf.int64))["identity"].numpy()
            before[name] = split
    assert len(before) == 120
    counts = Counter(before.values())
    assert 80 <= counts["train"] <= 110
    write_images(tmp_path / "cat", 5, first=60)
    source = ImageFolderSource(str(tmp_path), "train")
    train = {
        source.load(tf.constant(index, tf.int64))["identity"].numpy()
        for index in range(source.num_examples)
    }
    assert {name for name, split in before.items() if split == "train"} <= train


def test_hash_is_the_documented_one() -> None:
    names = [f"{number}.jpg" for number in range(2000)]
    counts = Counter(split_of_file("class", name) for name in names)
    assert abs(counts["train"] / 2000 - 0.8) < 0.03
    assert abs(counts["test"] / 2000 - 0.1) < 0.03
    assert split_of_file("cat", "000.png") == "train"


def test_extra_class_is_named(split_folders: Path) -> None:
    write_images(split_folders / "val" / "wolf", 1)
    with pytest.raises(ConfigurationError, match="lack: wolf"):
        ImageFolderSource(str(split_folders), "validation")


@pytest.mark.parametrize("data_dir", [None, ""])
def test_missing_option(data_dir: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.data_dir(.|\n)*CLASS"):
        ImageFolderSource(data_dir, "train")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.*not a folder.*CLASS"):
        ImageFolderSource(str(tmp_path / "nowhere"), "train")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no class folders.*CLASS"):
        ImageFolderSource(str(tmp_path), "train")


def test_missing_split(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "cat", 1)
    with pytest.raises(ConfigurationError, match="validation or val"):
        ImageFolderSource(str(tmp_path), "validation")
    with pytest.raises(ConfigurationError, match=r"test for .*or set data\.final_split=None\.$"):
        ImageFolderSource(str(tmp_path), "test")


def test_two_names_for_one_split(split_folders: Path) -> None:
    write_images(split_folders / "validation" / "cat", 1)
    with pytest.raises(ConfigurationError, match="must have one folder"):
        ImageFolderSource(str(split_folders), "validation")


def test_empty_class(split_folders: Path) -> None:
    (split_folders / "train" / "emu").mkdir()
    with pytest.raises(ConfigurationError, match=r"emu has no image files.*\.jpg"):
        ImageFolderSource(str(split_folders), "train")

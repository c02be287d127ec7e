"""Folders of images in both layouts, and every way to get them wrong."""

import os
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainers.data.datasets.folders import ImageFolderSource
from trainers.data.datasets.folders import split_of_file
from trainers.data.sources import SPLITS
from trainers.data.sources import make_source
from trainers.inference.inputs import find_inputs
from trainers.utils.errors import ConfigurationError


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


def _splits(folder: Path, listed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the split in which each file is found, by CLASS/FILE."""
    found = {}
    for split in SPLITS:
        source = make_source("folder", split, str(folder), file_splits=listed)
        for index in range(source.num_examples):
            path = Path(source.load(tf.constant(index, tf.int64))["identity"].numpy().decode())
            assert found.setdefault(str(path.relative_to(folder)), split) == split
    return found


def _counts(splits: Mapping[str, str]) -> list[int]:
    counts = Counter(splits.values())
    return [counts[split] for split in SPLITS]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((87, 87), [138, 18, 18]),  # 174: a hash alone gave 144, 21, 9
        ((100, 50, 24), [140, 17, 17]),
        ((6,), [4, 1, 1]),
        ((3, 3), [2, 2, 2]),
        ((4, 2), [4, 1, 1]),
        ((10, 30), [32, 4, 4]),
    ],
)
def test_the_split_is_exact_up_to_rounding(
    tmp_path: Path, sizes: tuple[int, ...], expected: list[int]
) -> None:
    for number, size in enumerate(sizes):
        write_images(tmp_path / f"class{number}", size)
    splits = _splits(tmp_path)
    assert len(splits) == sum(sizes)
    assert _counts(splits) == expected
    for number, size in enumerate(sizes):
        own = {name: split for name, split in splits.items() if name[5] == str(number)}
        for count, share in zip(_counts(own), (0.8, 0.1, 0.1), strict=True):
            assert abs(count - share * size) < 1 or size < 10
            assert count or size < 3


def test_files_that_come_later_move_none(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 20)
    before = dict(make_source("folder", "train", str(tmp_path)).file_splits)
    assert before == _splits(tmp_path)
    write_images(tmp_path / "cat", 10, first=20)
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    after = _splits(moved, before)
    assert after.items() >= before.items()
    added = {name: split for name, split in after.items() if name not in before}
    assert added == {
        f"cat/{n:03d}.png": split_of_file("cat", f"{n:03d}.png") for n in range(20, 30)
    }


def test_without_a_list_of_its_run_the_hash_decides(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 60)
    splits = _splits(tmp_path, {})
    assert splits == {name: split_of_file(*name.split("/")) for name in splits}
    with pytest.raises(ConfigurationError, match="none falls into the split 'test'"):
        write_images(tmp_path / "few" / "cat", 2)
        make_source("folder", "test", str(tmp_path / "few"))


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
    write_images(split_folders / "Valid" / "cat", 1)
    with pytest.raises(ConfigurationError, match="must have one folder"):
        ImageFolderSource(str(split_folders), "validation")


@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("TRAIN", "valid", "test")])
def test_split_folders_in_any_case(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names, start=1):
        write_images(tmp_path / name / "cat", number)
        write_images(tmp_path / name / "dog", number)
    for number, split in enumerate(SPLITS, start=1):
        source = make_source("folder", split, str(tmp_path))
        assert source.class_names == ("cat", "dog")
        assert source.num_examples == 2 * number
        assert not source.file_splits


def test_classes_that_are_called_like_splits(tmp_path: Path) -> None:
    for name in ("Car", "Train", "valid"):
        write_images(tmp_path / name, 3)
    source = make_source("folder", "validation", str(tmp_path))
    assert (source.class_names, source.num_examples) == (("Car", "Train", "valid"), 3)


def test_an_empty_class_is_left_out(split_folders: Path) -> None:
    (split_folders / "train" / "emu").mkdir()
    (split_folders / "val" / "yak" / "deeper").mkdir(parents=True)
    source = make_source("folder", "train", str(split_folders))
    assert source.class_names == ("cat", "dog")
    assert source.notes[-1].endswith("train: class folders without image files: emu")
    assert make_source("folder", "validation", str(split_folders)).num_examples == 5
    unsplit = split_folders / "train"
    assert make_source("folder", "train", str(unsplit)).class_names == ("cat", "dog")


def test_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "train" / "emu").mkdir(parents=True)
    (tmp_path / "train" / "emu" / "a.gif").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"no image files .*emu \(1 \.gif\).*\.jpg"):
        ImageFolderSource(str(tmp_path), "train")


def test_files_in_folders_of_a_class(tmp_path: Path) -> None:
    write_images(tmp_path / "cat" / "2023" / "may", 4)
    write_images(tmp_path / "cat", 2)
    write_images(tmp_path / "dog", 3)
    write_images(tmp_path / "dog" / ".cache", 1)
    (tmp_path / "dog" / "again").symlink_to(tmp_path / "dog")
    splits = _splits(tmp_path)
    assert len(splits) == 9
    assert "cat/2023/may/003.png" in splits
    assert set(splits) == {
        str(Path(each).relative_to(tmp_path)) for each in find_inputs([str(tmp_path)], False)
    }


def test_what_is_left_out_is_counted(split_folders: Path) -> None:
    cat = split_folders / "train" / "cat"
    for name in ("a.gif", "b.GIF", "c.tif", "deep/d.tif", "README"):
        (cat / name).parent.mkdir(exist_ok=True)
        (cat / name).write_bytes(b"")
    write_images(split_folders / "train", 2)
    write_images(split_folders / "unlabelled", 1)
    source = make_source("folder", "train", str(split_folders))
    assert source.num_examples == 5
    assert [note.removeprefix(f"left out of {split_folders}") for note in source.notes] == [
        ": beside the splits unlabelled",
        "/train: 1 without a suffix, 2 .gif, 2 .tif, 1 .txt; image files end in .jpg, .jpeg, "
        ".png, .bmp or .webp",
        "/train: in no class folder 2 .png",
    ]


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 3)
    (tmp_path / "cat" / "000.png").rename(os.fsdecode(bytes(tmp_path / "cat") + b"/\xe9.png"))
    with pytest.raises(ConfigurationError, match=r"udce9\.png.*Rename it"):
        make_source("folder", "train", str(tmp_path))


def test_a_file_system_of_tensorflow() -> None:
    folder = f"ram://{uuid.uuid4()}"
    for name in ("cat/1.png", "cat/deep/2.webp", "dog/3.png", "dog/4.gif"):
        tf.io.gfile.makedirs(f"{folder}/Train/{name}".rpartition("/")[0])
        tf.io.gfile.GFile(f"{folder}/Train/{name}", "wb").write(b"x")
    source = make_source("folder", "train", folder)
    assert (source.class_names, source.num_examples) == (("cat", "dog"), 3)

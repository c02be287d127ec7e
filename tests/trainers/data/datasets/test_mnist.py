"""MNIST's files: what is read of them, and what is said when they are missing or broken."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.mnist_files import NUM_TRAIN
from tests.helpers.mnist_files import real_digits
from tests.helpers.mnist_files import write_idx
from tests.helpers.mnist_files import write_mnist
from trainers.data.datasets.mnist import load_mnist
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

DIGITS = real_digits()
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of Keras without any data set."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "mnist", DIGITS)


def write_npz(folder: Path, **replaced: np.ndarray) -> None:
    train, test = slice(NUM_TRAIN), slice(NUM_TRAIN, None)
    arrays = {
        "x_train": DIGITS.images[train],
        "y_train": DIGITS.labels[train].astype(np.uint8),
        "x_test": DIGITS.images[test],
        "y_test": DIGITS.labels[test].astype(np.uint8),
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "mnist.npz", **{**arrays, **replaced})


def check_splits(data_dir: str | None) -> None:
    """Every digit is in one split, in the order of the files."""
    splits = [load_mnist(split, data_dir) for split in ("train", "validation", "test")]
    assert [len(split.labels) for split in splits] == [1_250, 250, 297]
    assert all(split.labels.dtype == np.int64 for split in splits)
    np.testing.assert_array_equal(np.concatenate([each.images for each in splits]), DIGITS.images)
    np.testing.assert_array_equal(np.concatenate([each.labels for each in splits]), DIGITS.labels)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path: Path, suffix: str) -> None:
    check_splits(str(write_mnist(tmp_path / "mnist", DIGITS, suffix)))


def test_npz_of_keras_in_the_folder(tmp_path: Path) -> None:
    write_npz(tmp_path / "folder")
    check_splits(str(tmp_path / "folder"))


@pytest.mark.parametrize("data_dir", [None, "empty"])
def test_npz_in_the_cache_of_keras(
    keras_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: str | None
) -> None:
    write_npz(keras_home / "datasets")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    check_splits(data_dir)


def test_positions_of_each_class(folder: Path) -> None:
    digits = load_mnist("test", str(folder))
    for label, positions in enumerate(digits.of_class):
        np.testing.assert_array_equal(positions, np.flatnonzero(digits.labels == label))


@pytest.mark.parametrize("data_dir", [None, "nowhere"])
def test_nothing_there_says_how_to_get_it(data_dir: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"keras\.datasets\.mnist\.load_data\(\)") as info:
        load_mnist("train", data_dir)
    assert "\n" not in str(info.value)
    assert "TensorFlow Datasets" in str(info.value)


def test_one_of_four_files_is_missing(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ConfigurationError, match="Missing: t10k-labels-idx1-ubyte. Put them"):
        load_mnist("train", str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"expected 1176000 bytes .* Received 1175999"),
        (lambda content: content + b"\0", r"expected 1176000 bytes .* Received 1176001"),
        (lambda content: b"\0\0\x08\x01" + content[4:], "magic number 2051. Received 2049"),
        (lambda content: content[:10], "magic number 2051. Received None"),
        (lambda content: b"", "magic number 2051. Received None"),
    ],
)
def test_broken_images(folder: Path, change: object, message: str) -> None:
    path = folder / IMAGES
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=f"{IMAGES}.*{message}"):
        load_mnist("train", str(folder))


@pytest.mark.parametrize(
    "content",
    [b"no archive", gzip.compress(bytes(99), mtime=0)[:-9], gzip.compress(bytes(99), mtime=0)[:20]],
)
def test_broken_archive(folder: Path, content: bytes) -> None:
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(DataError, match=f"{IMAGES}.gz cannot be unpacked"):
        load_mnist("train", str(folder))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (IMAGES, np.zeros((NUM_TRAIN, 27, 28)), r"images of 28x28 bytes. .*\(1500, 27, 28\)"),
        (LABELS, np.zeros(NUM_TRAIN - 1), r"expected 1500 labels.*\(1499,\)"),
        (LABELS, np.full(NUM_TRAIN, 10), "labels from 0 to 9. Received 10 to 10"),
        (LABELS, np.zeros(NUM_TRAIN), "each of the digits 0 to 9.*none is 1"),
    ],
)
def test_wrong_sizes(folder: Path, name: str, array: np.ndarray, message: str) -> None:
    write_idx(folder / name, array)
    with pytest.raises(DataError, match=message):
        load_mnist("train", str(folder))


def test_broken_npz(tmp_path: Path) -> None:
    write_npz(tmp_path, x_train=DIGITS.images[:NUM_TRAIN].astype(np.float32))
    with pytest.raises(DataError, match="images of 28x28 bytes. Received float32"):
        load_mnist("train", str(tmp_path))
    path = tmp_path / "mnist.npz"
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(DataError, match="not a whole mnist.npz of Keras"):
        load_mnist("train", str(tmp_path))
    np.savez(path, images=DIGITS.images)
    with pytest.raises(DataError, match="not a whole mnist.npz of Keras: .*x_train"):
        load_mnist("train", str(tmp_path))

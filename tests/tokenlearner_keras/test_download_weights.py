"""Fetching weights: by name or address, checked, and never half a file in the cache."""

import hashlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.goldens import golden_arrays
from tokenlearner_keras.weights.augreg import load_npz
from tokenlearner_keras.weights.download import BASE_URL
from tokenlearner_keras.weights.download import download_weights
from tokenlearner_keras.weights.download import list_weights

NAME = "vit_b16_augreg_in21k"
FILE = "augreg/B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz"
PAGE = b"<!DOCTYPE html><html>not found</html>"


class Mirror:
    """A folder served as file://, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mirror" / FILE
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(CHECKPOINT.read_bytes())
        self.url = (folder / "mirror").as_uri()
        self.cache = folder / "cache"

    def download(self, name: str = NAME, **options: str) -> Path:
        return download_weights(name, cache_dir=self.cache, base_url=self.url, **options)

    def files(self) -> set[str]:
        return {path.name for path in self.cache.rglob("*") if path.is_file()}


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _other_checkpoint(path: Path) -> None:
    np.savez(path, **{key: value + 1 for key, value in golden_arrays("augreg_checkpoint").items()})


def test_a_file_by_name_loads_into_a_model(mirror: Mirror) -> None:
    path = mirror.download()
    assert path.read_bytes() == CHECKPOINT.read_bytes()
    assert mirror.files() == {f"{NAME}.npz", f"{NAME}.npz.sha256"}
    fields = {"width": 24, "depth": 3, "num_heads": 3, "mlp_dim": 48, "image_size": 32}
    model = tk.create_model("vit_b8", num_classes=7, **fields)
    assert load_npz(model, path).left_over == ("cls",)


def test_it_is_fetched_once(mirror: Mirror) -> None:
    path = mirror.download()
    mirror.file.unlink()
    assert mirror.download() == path


def test_a_whole_address(mirror: Mirror) -> None:
    path = download_weights(mirror.file.as_uri(), cache_dir=mirror.cache)
    assert path.read_bytes() == CHECKPOINT.read_bytes()
    other = mirror.file.parents[1] / mirror.file.name
    _other_checkpoint(other)
    assert download_weights(other.as_uri(), cache_dir=mirror.cache) != path
    assert path.read_bytes() == CHECKPOINT.read_bytes()


def test_names_and_addresses() -> None:
    names = list_weights()
    assert NAME in names and "vit_b16_augreg_in21k_ft_in1k_224" in names
    assert list_weights("vit_h14*") == ["vit_h14_in21k"]
    for name in names:
        assert re.fullmatch(r"vit_(ti|s|b|l|h)\d+(_augreg)?_in(21k|1k)(_ft_in1k)?(_\d+)?", name)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (NAME, FILE),
        (
            "vit_ti16_augreg_in21k_ft_in1k_384",
            "augreg/Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
            "--imagenet2012-steps_20k-lr_0.03-res_384.npz",
        ),
        (
            "vit_b16_augreg_in1k_224",
            "augreg/B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1"
            "--imagenet2012-steps_20k-lr_0.01-res_224.npz",
        ),
        ("vit_h14_in21k", "imagenet21k/ViT-H_14.npz"),
        ("vit_b16_in21k_ft_in1k_224", "imagenet21k+imagenet2012/ViT-B_16-224.npz"),
    ],
)
def test_a_name_stands_for_the_publishers_file(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(file_name: str, url: str, **options: str) -> str:
        asked.append(url)
        path = Path(options["cache_dir"]) / file_name
        path.write_bytes(CHECKPOINT.read_bytes())
        return str(path)

    monkeypatch.setattr(keras.utils, "get_file", fetch)
    path = download_weights(name, cache_dir=tmp_path)
    assert asked == [f"{BASE_URL}/{file}"]
    assert path.name == f"{name}.npz"


def test_the_cache_is_keras_own(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(mirror.cache))
    assert download_weights(NAME, base_url=mirror.url).is_relative_to(mirror.cache)
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(Path, "home", lambda: mirror.cache / "home")
    path = download_weights(NAME, base_url=mirror.url)
    assert path.is_relative_to(mirror.cache / "home" / ".keras")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_b16_augreg_in21", "Near: vit_b16_augreg_in21k"),
        ("B_16", "list_weights"),
        (None, "list_weights"),
        ("ftp://example.org/a.npz", "Unknown weights"),
    ],
)
def test_unknown_names(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        download_weights(name, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_right_checksum_is_accepted_in_either_case(mirror: Mirror) -> None:
    digest = _sha256(CHECKPOINT)
    assert mirror.download(sha256=digest.upper()) == mirror.download(sha256=digest)
    for wrong in ("1234", digest[:-1] + "x"):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            mirror.download(sha256=wrong)


def test_a_wrong_checksum_leaves_nothing(mirror: Mirror) -> None:
    with pytest.raises(ValueError, match=f"SHA-256 is {_sha256(CHECKPOINT)}, expected 0000"):
        mirror.download(sha256="0" * 64)
    assert not mirror.files()


def test_a_wrong_checksum_leaves_a_good_file_alone(mirror: Mirror) -> None:
    path = mirror.download()
    with pytest.raises(ValueError, match="expected 0000"):
        mirror.download(sha256="0" * 64)
    mirror.file.unlink()
    assert mirror.download() == path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PAGE, "web page, not the file"),
        (CHECKPOINT.read_bytes()[:5000], "incomplete"),
    ],
)
def test_a_broken_download_leaves_nothing(content: bytes, message: str, mirror: Mirror) -> None:
    mirror.file.write_bytes(content)
    with pytest.raises(ValueError, match=f"was removed, since it .*{message}") as caught:
        mirror.download()
    assert mirror.url in str(caught.value)
    assert not mirror.files()
    assert not [path for path in mirror.cache.rglob(".download*")]


def test_arrays_that_are_no_vit_leave_nothing(mirror: Mirror) -> None:
    np.savez(mirror.file, a=np.zeros(3))
    with pytest.raises(ValueError, match="not a public ViT checkpoint"):
        mirror.download()
    assert not mirror.files()


def test_no_connection(mirror: Mirror) -> None:
    mirror.file.unlink()
    with pytest.raises(OSError, match=r"Could not download file://.*base_url="):
        mirror.download()
    assert not mirror.files()


def test_a_damaged_file_is_fetched_again(mirror: Mirror) -> None:
    path = mirror.download()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert mirror.download() == path
    assert path.read_bytes() == CHECKPOINT.read_bytes()


def test_a_damaged_file_is_never_returned(mirror: Mirror) -> None:
    path = mirror.download()
    path.write_bytes(PAGE)
    mirror.file.unlink()
    with pytest.raises(OSError, match="Could not download"):
        mirror.download()
    assert not path.exists()


def test_the_first_download_is_trusted_and_a_later_change_is_not(mirror: Mirror) -> None:
    path = mirror.download()
    first = _sha256(path)
    path.unlink()
    _other_checkpoint(mirror.file)
    with pytest.raises(ValueError, match=f"expected {first}"):
        mirror.download()
    assert not path.exists()
    mirror.download(sha256=_sha256(mirror.file))
    assert _sha256(mirror.download()) == _sha256(mirror.file)


def test_a_file_put_there_by_hand_is_checked_and_kept(mirror: Mirror) -> None:
    path = mirror.download()
    path.with_name(f"{path.name}.sha256").unlink()
    mirror.file.unlink()
    assert mirror.download() == path
    assert path.with_name(f"{path.name}.sha256").read_text().startswith(_sha256(CHECKPOINT))
    path.with_name(f"{path.name}.sha256").unlink()
    path.write_bytes(PAGE)
    with pytest.raises(ValueError, match="web page"):
        mirror.download()

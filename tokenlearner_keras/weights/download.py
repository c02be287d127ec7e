"""Fetches public Vision Transformers (.npz) by name into Keras' cache."""

import difflib
import fnmatch
import hashlib
import os
import re
import shutil
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

import keras

from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.weights.npz_file import iterate_npz
from tokenlearner_keras.weights.vit_checkpoint import check_vit_names

BASE_URL = "https://storage.googleapis.com/vit_models"

# The releases that timm's tags of the same words stand for: model and pre-training data,
# regularisation, and the fine-tuning on ImageNet-1k. 21k names without one are the
# pre-trained models, of 21843 classes at 224 pixels.
_AUGREG = (
    ("Ti_16-i21k", "aug_none-wd_0.03-do_0.0-sd_0.0", ("", "lr_0.03-res_224", "lr_0.03-res_384")),
    ("S_32-i21k", "aug_light1-wd_0.03-do_0.0-sd_0.0", ("", "lr_0.03-res_224", "lr_0.03-res_384")),
    ("S_16-i21k", "aug_light1-wd_0.03-do_0.0-sd_0.0", ("", "lr_0.03-res_224", "lr_0.03-res_384")),
    ("B_32-i21k", "aug_medium1-wd_0.03-do_0.0-sd_0.0", ("", "lr_0.03-res_224")),
    ("B_32-i21k", "aug_light1-wd_0.1-do_0.0-sd_0.0", ("lr_0.03-res_384",)),
    ("B_16-i21k", "aug_medium1-wd_0.1-do_0.0-sd_0.0", ("", "lr_0.01-res_224", "lr_0.01-res_384")),
    ("B_8-i21k", "aug_medium1-wd_0.1-do_0.0-sd_0.0", ("", "lr_0.01-res_224")),
    ("L_16-i21k", "aug_medium1-wd_0.1-do_0.1-sd_0.1", ("", "lr_0.01-res_224", "lr_0.01-res_384")),
    ("S_16-i1k", "aug_medium2-wd_0.1-do_0.0-sd_0.0", ("lr_0.01-res_224", "lr_0.01-res_384")),
    ("B_32-i1k", "aug_medium2-wd_0.1-do_0.1-sd_0.1", ("lr_0.01-res_224", "lr_0.01-res_384")),
    ("B_16-i1k", "aug_strong2-wd_0.1-do_0.1-sd_0.1", ("lr_0.01-res_224", "lr_0.01-res_384")),
)
# The models of the first paper (arXiv 2010.11929), with a pre_logits layer before fine-tuning.
_ORIGINAL = {
    "vit_b32_in21k": "imagenet21k/ViT-B_32.npz",
    "vit_b16_in21k": "imagenet21k/ViT-B_16.npz",
    "vit_l32_in21k": "imagenet21k/ViT-L_32.npz",
    "vit_l16_in21k": "imagenet21k/ViT-L_16.npz",
    "vit_h14_in21k": "imagenet21k/ViT-H_14.npz",
    "vit_b16_in21k_ft_in1k_224": "imagenet21k+imagenet2012/ViT-B_16-224.npz",
    "vit_l16_in21k_ft_in1k_224": "imagenet21k+imagenet2012/ViT-L_16-224.npz",
    "vit_b32_in21k_ft_in1k_384": "imagenet21k+imagenet2012/ViT-B_32.npz",
    "vit_b16_in21k_ft_in1k_384": "imagenet21k+imagenet2012/ViT-B_16.npz",
    "vit_l32_in21k_ft_in1k_384": "imagenet21k+imagenet2012/ViT-L_32.npz",
    "vit_l16_in21k_ft_in1k_384": "imagenet21k+imagenet2012/ViT-L_16.npz",
}


def _augreg_release(model: str, regularisation: str, tuning: str) -> tuple[str, str]:
    """Returns the name and the file of a release."""
    file = f"augreg/{model}-300ep-lr_0.001-{regularisation}"
    size, data = model.replace("_", "").lower().split("-")
    name = f"vit_{size}_augreg_{data.replace('i', 'in')}"
    if tuning:
        file += f"--imagenet2012-steps_20k-{tuning}"
        name += "_ft_in1k_" if name.endswith("in21k") else "_"
        name += tuning[-3:]
    return name, f"{file}.npz"


_RELEASES = {
    **dict(
        _augreg_release(model, regularisation, tuning)
        for model, regularisation, tunings in _AUGREG
        for tuning in tunings
    ),
    **_ORIGINAL,
}


def list_weights(pattern: str = "*") -> list[str]:
    """Returns the names of public weights that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_RELEASES, pattern))


def download_weights(
    name: str,
    *,
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
    base_url: str | None = None,
) -> Path:
    """Downloads a public ViT checkpoint, once, and returns its path in the cache.

    The publisher gives no checksums. The first download is therefore read whole and its SHA-256
    kept in a file beside it; every later use must match that, and a damaged file is fetched again.
    A download that fails a check is removed and never takes the place of a good file.

    Args:
        name: One of `list_weights()`, such as `"vit_b16_augreg_in21k"` (21843 classes) or
            `"vit_b16_augreg_in21k_ft_in1k_224"` (1000 classes, 224 pixels), or the whole address of
            another file, `https://…` or `file://…`.
        sha256: Checksum that the file must have, 64 hexadecimal digits, if you know it.
        cache_dir: Folder of the cache. None: Keras' own, `$KERAS_HOME` or `~/.keras`.
        base_url: Address of a mirror with the same files. None: the publisher's.

    Returns:
        Path of the `.npz` file, for `tk.load_npz`.

    Raises:
        ValueError: If the name is unknown (with the nearest ones), the checksum differs or the file
            is not a ViT checkpoint.
        OSError: If the download fails.

    Example:
        >>> path = tk.download_weights("vit_b16_augreg_in21k")
    """
    url, file_name = _address(name, BASE_URL if base_url is None else base_url)
    folder = _cache_folder(cache_dir)
    target = folder / file_name
    checksum = optional(_check_sha256, sha256, "sha256")
    if not _is_good(target, checksum):
        _download(url, target, checksum or _recorded(target))
    return target


def _address(name: str, base_url: str) -> tuple[str, str]:
    """Returns the address of a name and its file name in the cache."""
    if isinstance(name, str) and re.match(r"(https?|file)://", name):
        stem = Path(urllib.parse.unquote(urllib.parse.urlsplit(name).path)).stem
        # Files of the same name elsewhere are other files.
        short = hashlib.sha256(name.encode()).hexdigest()[:8]
        return name, f"{re.sub(r'[^A-Za-z0-9_.+-]', '_', stem)[-150:]}-{short}.npz"
    if not isinstance(name, str) or name not in _RELEASES:
        near = difflib.get_close_matches(str(name), _RELEASES, n=3, cutoff=0.5)
        hint = f" Near: {', '.join(near)}." if near else ""
        raise ValueError(
            f"Unknown weights {name!r}.{hint} list_weights() gives all names; the address of "
            "a file (https://… or file://…) is taken too."
        )
    return f"{base_url.rstrip('/')}/{_RELEASES[name]}", f"{name}.npz"


def _cache_folder(cache_dir: str | Path | None) -> Path:
    home = cache_dir or os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    folder = Path(home).expanduser() / "models" / "tokenlearner_keras"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_sha256(value: Any, name: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError(f"`{name}` must be 64 hexadecimal digits. Received: {value!r}.")
    return value.lower()


def _record_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _recorded(target: Path) -> str | None:
    """Returns the checksum that was kept beside a file, None if there is none."""
    try:
        words = _record_path(target).read_text().split()
    except OSError:
        return None
    return words[0] if words else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_good(target: Path, checksum: str | None) -> bool:
    """Whether the cached file can be used; removes it if it is damaged."""
    if not target.exists():
        return False
    digest, recorded = _sha256(target), _recorded(target)
    if recorded is None and checksum is None:
        # Put there by hand: read it whole, as after a download.
        _check_vit(target)
        _record(target, digest)
        return True
    if recorded not in (None, digest) and digest != checksum:
        target.unlink()
        return False
    return digest == (checksum or recorded)


def _download(url: str, target: Path, checksum: str | None) -> None:
    """Downloads into a separate folder, checks the file there and moves it into place."""
    folder = Path(tempfile.mkdtemp(prefix=".download-", dir=target.parent))
    try:
        file = _fetch(url, folder, target.name)
        try:
            _check_vit(file)
        except ValueError as error:
            problem = str(error).removeprefix(str(file)).strip()
            raise ValueError(f"The download of {url} was removed, since it {problem}") from error
        digest = _sha256(file)
        if checksum not in (None, digest):
            raise ValueError(
                f"The download of {url} was removed: its SHA-256 is {digest}, expected "
                f"{checksum}. The publisher changed the file, or somebody else did. If you "
                f"trust it, pass sha256= with the new value or delete {_record_path(target)}."
            )
        # The record first: a file without one would be trusted on its next use.
        _record(target, digest)
        os.replace(file, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _record(target: Path, digest: str) -> None:
    """Keeps a file's checksum beside it, in the format of the program sha256sum."""
    path = _record_path(target)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(f"{digest}  {target.name}\n")
    os.replace(unfinished, path)


def _fetch(url: str, folder: Path, file_name: str) -> Path:
    try:
        return Path(
            keras.utils.get_file(file_name, url, cache_dir=str(folder), cache_subdir="files")
        )
    except Exception as error:  # Keras raises nothing more exact for a failed download.
        raise OSError(
            f"Could not download {url} ({error}). Check the address and the connection, pass "
            "base_url= of a mirror, or fetch the file by hand and pass its path to tk.load_npz."
        ) from error


def _check_vit(file: Path) -> None:
    """Reads a file whole, array by array, and checks that it is a ViT checkpoint."""
    names = [name for name, _ in iterate_npz(file)]
    try:
        check_vit_names(names)
    except ValueError as error:
        raise ValueError(f"{file} {error}.") from error

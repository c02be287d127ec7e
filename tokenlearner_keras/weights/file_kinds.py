"""Tells what a file that is no .npz of weights seems to be."""

from collections.abc import Sequence

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"

_KINDS = (
    (
        b"\x93NUMPY",
        "it is a single NumPy array (.npy). Save the arrays by name with numpy.savez",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "it is an HDF5 file. Keras weights (.weights.h5) load with model.load_weights",
    ),
    (b"\x1f\x8b", "it is compressed with gzip. Unpack it first (gunzip)"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file. Run git lfs pull"),
    (
        b"\x80",
        "it is a pickle, as of torch.save, which can run any code when read. Save its arrays "
        "with numpy.savez, in a place where you trust it",
    ),
)
_WEB_PAGE = (
    "the address gave a web page, not the file. Check the address in a browser; some sites "
    "ask for a login or offer another link for the download itself"
)


def kind_of_file(start: bytes) -> str | None:
    """Returns what a file that begins with `start` is and the cure; None for a zip."""
    if start.startswith(_ZIP):
        return None
    if not start:
        return "it is empty. The download broke off; delete it and download again"
    if start.startswith(_EMPTY_ZIP):
        return "it is an archive without arrays"
    for signature, kind in _KINDS:
        if start.startswith(signature):
            return kind
    # Storage services answer a wrong address with XML.
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        return _WEB_PAGE
    if start[8:10] == b'{"':
        return "it is a safetensors file. Save its arrays with numpy.savez"
    return "it does not begin as one. Check the path, or download it again"


def kind_of_archive(names: Sequence[str]) -> str | None:
    """Returns what an archive of these members is and the cure; None for an `.npz`."""
    endings = {name.rsplit("/", 1)[-1] for name in names}
    if "data.pkl" in endings:
        return (
            "it is a PyTorch file of torch.save, which holds a pickle. Save its arrays with "
            "numpy.savez"
        )
    if "model.weights.h5" in endings:
        return "it is a Keras model (.keras). Load it with keras.models.load_model"
    others = [name for name in names if not name.endswith(".npy")]
    if others:
        return f"it is an archive with {others[0]!r}, which is no NumPy array"
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        return f"it holds {twice!r} more than once. Download it again"
    return None

"""Reading .npz files that are broken, something else or made to harm."""

import gzip
import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tokenlearner_keras.weights.npz_file import read_npz

ARRAYS = {
    "a/kernel": np.arange(24, dtype="float32").reshape(2, 3, 4),
    "a/bias": np.linspace(0, 1, 7),
    "scalar": np.float16(3.5),
    "empty": np.zeros((0, 3), "float32"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(5, dtype=">f4"),
}


def _bytes(save: Callable[..., None] = np.savez, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, **(arrays or ARRAYS))
    return file.getvalue()


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return file.getvalue()


def _header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    declared = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, declared)
    return file.getvalue()


def _objects() -> bytes:
    return _bytes(a=np.array([{"x": 1}, None], dtype=object))


def _duplicates() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", _header((1,)) + bytes(4))
        archive.writestr("a.npy", _header((1,)) + bytes(4))
    return file.getvalue()


def _bit_flipped() -> bytes:
    content = bytearray(_bytes())
    content[content.index(ARRAYS["a/kernel"].tobytes()) + 9] ^= 1
    return bytes(content)


def _lying_directory() -> bytes:
    """The directory declares a member larger than what the stream holds."""
    honest = _zip(a__npy=_header((1000,)) + bytes(100))
    content = bytearray(honest)
    at = content.rindex(b"PK\x01\x02") + 24
    size = len(_header((1000,))) + 4000
    content[at : at + 4] = size.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(save: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    path.write_bytes(_bytes(save))
    arrays = read_npz(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        assert array.flags.writeable
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.shape == ARRAYS[name].shape


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "web page, not the file"),
        (b"\n <html>sign in</html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "web page"),
        (pickle.dumps({"model": [1, 2]}), "pickle"),
        (_zip(**{"archive/data__pkl": pickle.dumps({})}), "PyTorch"),
        (_zip(config__json=b"{}", **{"model__weights__h5": b"x"}), "keras.models.load_model"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (gzip.compress(_bytes(), mtime=0), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "LFS"),
        ((40).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}', "safetensors"),
        (_header((3,)) + bytes(12), "single NumPy array"),
        (b"any other bytes", "does not begin as one"),
        (_zip(), "without arrays"),
        (_zip(a__txt=b"hello"), "a.txt"),
        (_bytes()[:-200], "damaged or incomplete"),
        (_bytes()[:600], "damaged or incomplete"),
        (_bit_flipped(), "damaged or incomplete"),
        (_duplicates(), "more than once"),
        (_objects(), "Python objects"),
        (_zip(a__npy=_header((10**6, 10**6)) + bytes(64)), "header declares shape"),
        (_zip(a__npy=_header((-2, -3)) + bytes(24)), "header declares shape"),
        (_zip(a__npy=_header((5,)) + bytes(24)), "header declares shape"),
        (_zip(a__npy=b"\x93NUMPY\x01\x00\x10\x00{'descr': 'nonsen"), "broken header"),
        (_zip(a__npy=b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(9)), "broken header"),
        (_zip(a__npy=b"no array at all"), "broken header"),
        (_lying_directory(), "damaged or incomplete"),
        (_zip(a__npy=_header((10**8,)) + bytes(4 * 10**8)), "exhaust memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_named_with_bounded_memory(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            read_npz(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 2 * 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_numpy_does_not_write_is_refused(method: int, tmp_path: Path) -> None:
    """Its decompressors have no bound on what a chunk becomes."""
    path = tmp_path / "file.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", _header((2,)) + bytes(8))
    with pytest.raises(ValueError, match=r"numpy\.savez"):
        read_npz(path)


def test_every_single_damaged_byte_gives_a_value_error_or_the_arrays(tmp_path: Path) -> None:
    """Never another exception, never other values."""
    path = tmp_path / "file.npz"
    good = _bytes(np.savez_compressed)
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(good), 400):
        content = bytearray(good)
        content[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(content))
        try:
            arrays = read_npz(path)
        except ValueError:
            continue
        for name in arrays.keys() & ARRAYS.keys():
            np.testing.assert_array_equal(arrays[name], ARRAYS[name])


def test_the_total_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    path.write_bytes(_bytes(a=np.ones(1000, "float32"), b=np.ones(1000, "float32")))
    assert len(read_npz(path, max_bytes=9000)) == 2
    with pytest.raises(ValueError, match="max_bytes=7999"):
        read_npz(path, max_bytes=7999)
    with pytest.raises(ValueError, match="`max_bytes`"):
        read_npz(path, max_bytes=0)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="download_weights"):
        read_npz(tmp_path / "absent.npz")
    with pytest.raises(FileNotFoundError, match="This is an address"):
        read_npz("https://example.org/vit.npz")
    with pytest.raises(ValueError, match="is not a file"):
        read_npz(tmp_path)

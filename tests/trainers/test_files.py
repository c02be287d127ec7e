from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from trainers import files


@pytest.fixture(params=["local", "ram"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A directory on the disk, and one on a file system of TensorFlow."""
    if request.param == "local":
        yield str(tmp_path / "folder")
    else:
        path = f"ram://{tmp_path.name}/folder"
        yield path
        files.remove(path)


def test_what_is_written_is_read(folder: str) -> None:
    files.make_directories(files.join(folder, "a", "b"))
    files.make_directories(files.join(folder, "a", "b"))
    for write in (files.write, files.write_atomically):
        path = files.join(folder, "a", f"{write.__name__}.bin")
        for payload in (b"\x00long\xff", b"new", b""):
            write(path, payload)
            files.force(path)
            assert files.read(path) == payload
    assert files.list_names(files.join(folder, "a")) == ["b", "write.bin", "write_atomically.bin"]
    assert files.is_directory(folder) and files.exists(folder)
    assert files.exists(path) and not files.is_directory(path)


def test_rows_are_appended(folder: str) -> None:
    files.make_directories(folder)
    path = files.join(folder, "rows")
    files.append(path, b"one\n")
    files.append(path, b"two\n")
    assert files.read(path) == b"one\ntwo\n"


def test_what_is_removed_is_gone(folder: str) -> None:
    files.make_directories(files.join(folder, "a", "b"))
    path = files.join(folder, "a", "b", "file")
    files.write(path, b"x")
    files.remove(path)
    assert not files.exists(path)
    files.remove(path)
    files.write(path, b"x")
    files.remove(files.join(folder, "a"))
    assert not files.exists(path) and files.list_names(folder) == []


def test_what_is_not_there(folder: str) -> None:
    path = files.join(folder, "nothing")
    assert not files.exists(path) and not files.is_directory(path)
    assert files.list_names(path) == []
    with pytest.raises(FileNotFoundError):
        files.read(path)


def test_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.write_atomically("here", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_paths_are_joined() -> None:
    assert files.join("gs://bucket/run/", "checkpoints", "x") == "gs://bucket/run/checkpoints/x"
    assert files.join(Path("run"), "checkpoints") == str(Path("run") / "checkpoints")
    assert files.is_remote("gs://bucket/run") and not files.is_remote("run/a:b")


def test_errors_of_tensorflow_are_errors_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="nowhere"):
        files.exists("nowhere://bucket/run")

    def refuse(path: str) -> bool:
        raise tf.errors.PermissionDeniedError(None, None, f"no key\nfor {path}")

    monkeypatch.setattr(tf.io.gfile, "exists", refuse)
    with pytest.raises(PermissionError, match="gs://bucket/run: no key for gs://bucket/run"):
        files.exists("gs://bucket/run")


def test_a_failed_write_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    files.write_atomically(path, b"old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    files.write_atomically(path, b"{}")
    assert path.read_bytes() == b"{}"

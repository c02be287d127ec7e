from pathlib import Path

import pytest
import tensorflow as tf

from trainers.utils import files


def test_what_is_written_is_read(directory: str) -> None:
    files.make_directories(files.join(directory, "a", "b"))
    files.make_directories(files.join(directory, "a", "b"))
    for write in (files.write, files.write_atomically):
        path = files.join(directory, "a", f"{write.__name__}.bin")
        for payload in (b"\x00long\xff", b"new", b""):
            write(path, payload)
            files.fsync(path)
            assert files.read(path) == payload
    names = files.list_names(files.join(directory, "a"))
    assert names == ["b", "write.bin", "write_atomically.bin"]
    assert files.is_directory(directory) and files.exists(directory)
    assert files.exists(path) and not files.is_directory(path)


def test_rows_are_appended(directory: str) -> None:
    files.make_directories(directory)
    path = files.join(directory, "rows")
    files.append(path, b"one\n")
    files.append(path, b"two\n")
    assert files.read(path) == b"one\ntwo\n"


def test_what_is_removed_is_gone(directory: str) -> None:
    files.make_directories(files.join(directory, "a", "b"))
    path = files.join(directory, "a", "b", "file")
    files.write(path, b"x")
    files.remove(path)
    assert not files.exists(path)
    files.remove(path)
    files.write(path, b"x")
    files.remove(files.join(directory, "a"))
    assert not files.exists(path) and files.list_names(directory) == []


def test_what_is_not_there(directory: str) -> None:
    path = files.join(directory, "nothing")
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
        with pytest.raises(OSError, match="No space left on device: .*config.json"):
            files.write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    files.write_atomically(path, b"{}")
    assert path.read_bytes() == b"{}"


def test_what_is_interrupted_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_bytes() == b"old"


def test_nothing_is_written_or_removed_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".partial-config.json").symlink_to(outside / "a.txt")
    files.write_atomically(folder / "config.json", b"{}")
    (folder / "linked").symlink_to(outside)
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("linked", "gone"):
        files.remove(folder / name)
    assert files.list_names(folder) == ["config.json"]
    assert (outside / "a.txt").read_text() == "mine"

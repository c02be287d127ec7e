"""Checkpoints are written in the background: what fails or is killed there harms no other."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.trainers.checkpoint_stores import ThreeCheckpoints
from tests.trainers.checkpoint_stores import small_arrays
from tests.trainers.small_runs import assert_same_arrays
from trainers import files
from trainers.checkpointing import CheckpointStore

#: What the writing of a checkpoint writes, in order.
FILES = ["arrays.npz", ".partial-manifest.json"]


class _Slow:
    """Holds every write back until it is let go; may fail after that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.go = threading.Event()
        self.written: list[str] = []
        write = files.write

        def wait_and_write(path: str, payload: bytes) -> None:
            assert self.go.wait(60)
            if error is not None:
                raise error
            self.written.append(Path(path).name)
            write(path, payload)

        monkeypatch.setattr(files, "write", wait_and_write)


def test_the_loop_goes_on_while_a_checkpoint_is_written(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _Slow(monkeypatch)
    with CheckpointStore(directory, 9) as store:
        store.save(1, small_arrays())  # returns, although nothing can be written yet
        assert slow.written == []
        slow.go.set()
        store.save(2, small_arrays())  # waits for the first one
        assert slow.written[:2] == FILES
    assert CheckpointStore(directory, 9).steps() == [1, 2]
    assert slow.written == FILES * 2


def test_an_error_of_the_writer_comes_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _Slow(monkeypatch, OSError(28, "No space left on device"))
    slow.go.set()
    reports: list[str] = []
    store = CheckpointStore(tmp_path, 9, reports.append)
    store.save(1, small_arrays())
    with pytest.raises(OSError, match="No space"):
        store.save(2, small_arrays())
    assert store.steps() == [] and store.load_newest() is None
    with pytest.raises(OSError, match="No space"), store:
        store.save(3, small_arrays())
    # The error that ends the run comes first.
    with pytest.raises(KeyError), store:
        store.save(4, small_arrays())
        raise KeyError("the run's own")
    (report,) = reports
    assert "could not be written" in report and "No space" in report


def test_a_failed_write_leaves_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ThreeCheckpoints(tmp_path)
    before = (store.path(3) / "arrays.npz").read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for step in (3, 4):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            store.store.save(step, small_arrays(8))
            with pytest.raises(OSError, match="No space"):
                store.store.wait()
        assert store.store.steps() == [1, 2, 3]
        assert (store.path(3) / "arrays.npz").read_bytes() == before
    blocked = CheckpointStore(tmp_path / "file", 1)
    (tmp_path / "file").write_text("")
    blocked.save(1, small_arrays())
    with pytest.raises(OSError):
        blocked.wait()


def test_python_objects_are_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 1)
    store.save(1, {"bad": np.array([None])})
    with pytest.raises(TypeError, match="'bad' holds Python objects"):
        store.wait()


class _Killed(BaseException):
    """The process ends here."""


#: Functions of trainers.files that change something.
CHANGES = ("make_directories", "write", "rename", "force", "remove")


def _die_at(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Kills the run at the n-th change of a file, and leaves nothing to do after it.

    A write that is killed has written a half.
    """
    done: list[str] = []

    def dying(name: str) -> Callable[..., None]:
        original = getattr(files, name)

        def call(path: str, *rest: object) -> None:
            done.append(name)
            if len(done) == number and name == "write":
                (payload,) = rest
                assert isinstance(payload, bytes)
                original(path, payload[: len(payload) // 2])
            if len(done) >= number:
                raise _Killed
            original(path, *rest)

        return call

    for name in CHANGES:
        patch.setattr(files, name, dying(name))
    return done


def test_a_kill_at_any_change_of_a_file(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 99):
        files.remove(directory)
        store = CheckpointStore(directory, 2)
        for step in (1, 2):
            store.save(step, small_arrays(step))
        store.wait()
        with monkeypatch.context() as patch:
            done = _die_at(patch, number)
            store.save(3, small_arrays(3))
            try:
                store.wait()
                break  # there was nothing left to kill
            except _Killed:
                pass
        reports: list[str] = []
        again = CheckpointStore(directory, 2, reports.append)
        found = again.load_newest()
        assert found is not None and found[0] in (2, 3)
        assert_same_arrays(found[1], small_arrays(found[0]))
        # Not even the command that lists them sees a trace of the kill.
        for step in again.steps():
            assert_same_arrays(again.load(step), small_arrays(step))
        again.save(3, small_arrays(3))
        assert again.steps() == [2, 3] and reports == []
        assert len(files.list_names(directory)) == 2
    assert number > len(done) > 5 and set(done) <= set(CHANGES)

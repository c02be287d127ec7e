"""Checkpoints are written in the background: what fails or is killed there harms no other."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reliability.crash_points import deaths
from benchmarks.reliability.crash_points import die_at_change
from tests.helpers import processes
from tests.helpers.checkpoint_stores import ThreeCheckpoints
from tests.helpers.checkpoint_stores import small_arrays
from trainers.checkpointing.store import CheckpointStore
from trainers.utils import files

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


def test_the_loop_continues_while_a_checkpoint_is_written(
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


def test_a_death_at_any_change_of_a_file(directory: str) -> None:
    found = list(deaths(directory, die_at_change))
    assert len(found) > 5 and all(held for _, held in found), found


def test_a_kill_at_any_operation_on_a_file(tmp_path: Path) -> None:
    # Apart from this process and its threads: it is copied for each kill.
    program = (
        "import sys; from benchmarks.reliability.crash_points import *; "
        "print(*(held for _, held in deaths(sys.argv[1], die_in_process)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "checkpoints")],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE,
        check=True,
    )
    held = done.stdout.split()
    assert len(held) > 10 and set(held) == {"True"}

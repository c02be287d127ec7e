"""Death at every operation of one save: `python -m benchmarks.reliability.crash_points`.

The object store lives in memory and would die with the process, so there an exception cuts off the
operation instead.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.reliability import part
from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.checkpoint_file import digest
from trainers.checkpointing.store import CheckpointStore
from trainers.utils import files

#: Python tells of these before they are done; of "open" only for writing.
_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
#: Functions of trainers.utils.files that change something.
CHANGES = ("make_directories", "write", "rename", "fsync", "remove")
_KEEP = 2
_MOST = 999


def measure(workdir: Path) -> Iterator[part.Row]:
    after = "the newest or the one before it loads, and the next save works"
    for name, directory, die in (
        ("local directory, SIGKILL", str(workdir.absolute() / "checkpoints"), die_in_process),
        ("object store, nothing done after", "ram://reliability/checkpoints", die_at_change),
    ):
        found = list(deaths(directory, die))
        kinds = ", ".join(dict.fromkeys(operation for operation, _ in found))
        yield part.Row(
            f"{name}: death at each operation of a save; {after}",
            len(found),
            sum(held for _, held in found),
            f"operations: {kinds}",
        )


#: Saves step 3 into a store and dies at the k-th operation: returns its name, or None if there
#: were fewer.
Die = Callable[[str, int], str | None]


def deaths(directory: str, die: Die) -> Iterator[tuple[str, bool]]:
    """Yields each operation at which a save of a third checkpoint died, and whether all held."""
    for number in range(1, _MOST):
        files.remove(directory)
        with CheckpointStore(directory, _KEEP) as store:
            for step in (1, 2):
                store.save(step, arrays(step))
        operation = die(directory, number)
        if operation is None:
            return
        yield operation, _is_whole(directory)
    raise AssertionError(f"A save of more than {_MOST} operations.")


def arrays(step: int) -> Arrays:
    generator = np.random.default_rng(step)
    return {
        "model/kernel": generator.normal(size=(64, 64)).astype(np.float32),
        "optimizer/iterations": np.array(step, np.int64),
    }


def _is_whole(directory: str) -> bool:
    """Tells whether an earlier checkpoint or the new one is there, and another can follow."""
    reports: list[str] = []
    store = CheckpointStore(directory, _KEEP, reports.append)
    found = store.load_newest()
    if found is None or found[0] not in (2, 3):
        return False
    listed = store.steps()
    same = all(digest(store.load(step)) == digest(arrays(step)) for step in listed)
    store.save(3, arrays(3))
    kept = store.steps() == [2, 3] and digest(store.load(3)) == digest(arrays(3))
    return same and kept and not reports and len(files.list_names(directory)) == _KEEP


def die_in_process(directory: str, number: int) -> str | None:
    """Saves in a copy of this process, which is killed as the k-th operation begins."""
    with tempfile.TemporaryFile() as note:
        child = os.fork()
        if child == 0:
            _save_and_die(directory, number, note.fileno())
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise AssertionError(f"The save has failed without a kill at operation {number}.")
            return None
        assert os.WTERMSIG(status) == signal.SIGKILL
        note.seek(0)
        return note.read().decode()


def _save_and_die(directory: str, number: int, note: int) -> None:
    count = 0

    def operation(name: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.write(note, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax"
        if writes or event in _EVENTS:
            # Trees are removed by names within a directory that is open.
            path = str(arguments[0])
            if path.startswith(directory) or not os.path.isabs(path):
                operation(event.removeprefix("os."))

    def opened(path: Any, mode: str) -> HalvedWrites:
        return HalvedWrites(open(path, mode), lambda: operation("half of a write"))

    def fsync(descriptor: int, force: Callable[[int], None] = os.fsync) -> None:
        operation("fsync")
        force(descriptor)

    status = 1
    try:
        sys.addaudithook(audit)
        with (
            mock.patch.object(files, "open", opened, create=True),
            mock.patch.object(os, "fsync", fsync),
            CheckpointStore(directory, _KEEP) as store,
        ):
            store.save(3, arrays(3))
        status = 0
    finally:
        os._exit(status)


class HalvedWrites:
    """A file that calls a function in the midst of each write."""

    def __init__(self, file: Any, halfway: Callable[[], None]) -> None:
        self._file = file
        self._halfway = halfway

    def __enter__(self) -> "HalvedWrites":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, payload: bytes) -> None:
        self._file.write(payload[: len(payload) // 2])
        self._file.flush()
        self._halfway()
        self._file.write(payload[len(payload) // 2 :])


class _Killed(BaseException):
    """The process ends here."""


def die_at_change(directory: str, number: int) -> str | None:
    """Saves, and leaves nothing to do after the k-th change; a write has written a half."""
    done: list[str] = []

    def dying(name: str) -> Callable[..., None]:
        original = getattr(files, name)

        def call(path: str, *rest: Any) -> None:
            done.append(name)
            if len(done) == number and name == "write":
                (payload,) = rest
                original(path, payload[: len(payload) // 2])
            if len(done) >= number:
                raise _Killed
            original(path, *rest)

        return call

    changes: dict[str, Any] = {name: dying(name) for name in CHANGES}
    with mock.patch.multiple(files, **changes):
        store = CheckpointStore(directory, _KEEP)
        store.save(3, arrays(3))
        try:
            store.wait()
        except _Killed:
            return done[number - 1].replace("_", " ")
    return None


if __name__ == "__main__":
    part.run("crash_points", measure)

"""Arrays in the cache: made once and whole, mapped when read, made again when damaged."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.processes import ROOT
from trainers.utils import array_cache
from trainers.utils.array_cache import Arrays
from trainers.utils.array_cache import cached_arrays
from trainers.utils.errors import DataError
from trainers.utils.subprocesses import Job

#: Lengths of the parts, of which one is empty.
LENGTHS = (3, 0, 2)
WORKER = """
import sys

import numpy as np

first, count, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
labels = np.arange(first, first + count)
np.savez(output, labels=labels, images=np.repeat(labels, 4).reshape(-1, 2, 2).astype(np.uint8))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that a job runs."""
    (tmp_path / "number_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    return "number_worker"


@pytest.fixture
def make(module: str, tmp_path: Path) -> Callable[..., Arrays]:
    """Makes the arrays in one folder, and counts in `make.plans` how often."""

    def run(lengths: tuple[int, ...] = LENGTHS, wrong: str = "", **options: int) -> Arrays:
        def plan(folder: Path) -> dict[Path, Job]:
            assert list(folder.iterdir()) == []
            run.plans += 1  # type: ignore[attr-defined]
            jobs, first = {}, 0
            for number, length in enumerate(lengths):
                output = folder / f"{number}.npz"
                arguments = (f"{wrong}{first}", str(length), str(output))
                jobs[output] = Job(str(number), module, arguments)
                first += length
            return jobs

        return cached_arrays(tmp_path / "cache" / "numbers", "Counting", plan, **options)

    run.plans = 0  # type: ignore[attr-defined]
    return run


def check(arrays: Arrays) -> None:
    assert arrays.keys() == {"labels", "images"}
    np.testing.assert_array_equal(arrays["labels"], np.arange(5))
    np.testing.assert_array_equal(arrays["images"][:, 1, 0], np.arange(5))
    assert arrays["images"].dtype == np.uint8


@pytest.mark.parametrize("workers", [1, 3])
def test_made_once_and_then_mapped(make: Callable[..., Arrays], workers: int) -> None:
    check(make(workers=workers))
    arrays = make(workers=workers)
    check(arrays)
    assert make.plans == 1  # type: ignore[attr-defined]
    assert all(isinstance(array, np.memmap) for array in arrays.values())


def test_nothing_else_is_left(make: Callable[..., Arrays], tmp_path: Path) -> None:
    left_by_a_kill = tmp_path / "cache" / ".partial-numbers-1234"
    left_by_a_kill.mkdir(parents=True)
    make()
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"numbers", "numbers.lock"}
    names = {path.name for path in (tmp_path / "cache" / "numbers").iterdir()}
    assert names == {"labels.npy", "images.npy", "sizes.json"}


def test_changes_stay_in_the_process(make: Callable[..., Arrays]) -> None:
    make()["images"][:] = 9
    check(make())


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [_truncate, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["labels.npy", "images.npy", "sizes.json"])
def test_damage_is_repaired(
    make: Callable[..., Arrays],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    name: str,
) -> None:
    make()
    damage(tmp_path / "cache" / "numbers" / name)
    capsys.readouterr()
    check(make())
    assert "damaged" in capsys.readouterr().err
    assert make.plans == 2  # type: ignore[attr-defined]


def test_a_failed_job_leaves_nothing(make: Callable[..., Arrays], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ValueError: invalid literal"):
        make(wrong="x")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["numbers.lock"]
    check(make())


def test_no_examples_are_an_error(make: Callable[..., Arrays], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected at least one example"):
        make(lengths=(0, 0))
    assert not (tmp_path / "cache" / "numbers").exists()


HOLDER = """
import sys
from trainers.utils.lock import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_for_the_first(
    make: Callable[..., Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the lock until its arrays are there; they are used."""
    make()
    cache = tmp_path / "cache"
    shutil.move(cache / "numbers", tmp_path / "made_elsewhere")
    waits = threading.Event()
    mapped = array_cache._mapped

    def look(folder: Path) -> Arrays | None:
        arrays = mapped(folder)
        waits.set()
        return arrays

    monkeypatch.setattr(array_cache, "_mapped", look)
    command = [sys.executable, "-c", HOLDER, str(cache / "numbers.lock")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        results: list[Arrays] = []
        reader = threading.Thread(target=lambda: results.append(make()))
        reader.start()
        assert waits.wait(timeout=600)  # has looked once, and now comes to the lock
        shutil.move(tmp_path / "made_elsewhere", cache / "numbers")
        holder.communicate()
    reader.join(timeout=600)
    (arrays,) = results
    check(arrays)
    assert make.plans == 1  # type: ignore[attr-defined]

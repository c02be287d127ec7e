"""Keeps large arrays in the cache: worker processes make them once, readers map them."""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.utils import files
from trainers.utils.errors import DataError
from trainers.utils.lock import locked
from trainers.utils.reporting import log_to_stderr
from trainers.utils.subprocesses import Job
from trainers.utils.subprocesses import default_workers
from trainers.utils.subprocesses import run_jobs

#: Arrays by name, with the examples along their first axes.
Arrays = dict[str, NDArray[Any]]
#: The jobs that make a set, in the order of the examples, by the `.npz` that each writes.
Plan = Mapping[Path, Job]

COUNTED = "labels"  # an array of every set
SIZES_FILE = "sizes.json"  # the bytes of each file


def cached_arrays(
    folder: Path,
    description: str,
    plan: Callable[[Path], Plan],
    workers: int | None = None,
) -> Arrays:
    """Loads the arrays that a folder of the cache holds; makes them first if it is not there.

    The folder appears whole or not at all. Of two processes that start together, one makes the
    arrays and the other waits. A file that is missing or too short is noticed, and the set is made
    again; its content is not checked, for a digest of gigabytes would delay every start.

    Args:
        folder: Its name stands for everything that decides the bytes.
        description: For the progress bar.
        plan: Returns the jobs; receives an empty folder for their files. The arrays of a part
            include `labels`.
        workers: Processes alive at once; None: one per core, at most 8.

    Returns:
        The arrays, read from the disk as they are used. A change to them stays in this process.

    Raises:
        DataError: A job failed, or all together made no example.
    """
    arrays = _mapped(folder)
    if arrays is not None:
        return arrays
    with locked(folder.with_name(f"{folder.name}.lock")) as is_held:
        arrays = _mapped(folder)
        if arrays is None:
            _make(folder, description, plan, workers or default_workers(), is_held)
            arrays = _mapped(folder)
    if arrays is None:
        raise DataError(
            f"{folder} has changed while it was written. Run the same command again; if that does "
            "not help, set TOKENLEARNER_CACHE to a folder on a local disk."
        )
    return arrays


def _make(
    folder: Path, description: str, plan: Callable[[Path], Plan], workers: int, is_locked: bool
) -> None:
    start = time.monotonic()
    prefix = f"{files.PARTIAL}{folder.name}-"
    if is_locked:  # else another process may be writing
        for left_by_a_kill in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
    partial = folder.with_name(f"{prefix}{uuid.uuid4().hex}")
    parts = partial / "parts"
    try:
        parts.mkdir(parents=True)
        jobs = plan(parts)
        run_jobs(list(jobs.values()), description, workers)
        count = _join(list(jobs), partial)
        shutil.rmtree(parts)
        files.fsync(partial)
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or of a process that was not locked
        os.replace(partial, folder)
        files.fsync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    seconds = time.monotonic() - start
    log_to_stderr(f"{count} examples in {seconds:.0f} s, kept in {folder}")


def _join(parts: Sequence[Path], folder: Path) -> int:
    """Writes one `.npy` per array into a folder and removes the parts; returns the examples."""
    counts = []
    for part in parts:
        with np.load(part, allow_pickle=False) as arrays:
            counts.append(len(arrays[COUNTED]))
    total = sum(counts)
    if not total:
        raise DataError(f"{folder.parent.name}: expected at least one example, and none was made.")
    joined: dict[str, np.memmap[Any, Any]] = {}
    start = 0
    for part, count in zip(parts, counts, strict=True):
        with np.load(part, allow_pickle=False) as arrays:
            for name, array in arrays.items():
                if name not in joined:
                    shape = (total, *array.shape[1:])
                    path = folder / f"{name}.npy"
                    joined[name] = np.lib.format.open_memmap(path, "w+", array.dtype, shape)
                joined[name][start : start + count] = array
        start += count
        part.unlink()  # before the next one is copied: both take much of the disk
    for array in joined.values():
        array.flush()
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.npy"))}
    files.write(folder / SIZES_FILE, json.dumps(sizes).encode())
    return total


def _mapped(folder: Path) -> Arrays | None:
    """Returns the arrays in a folder; None if it is not there, or is damaged."""
    if not folder.is_dir():
        return None
    with contextlib.suppress(OSError, ValueError):
        sizes = json.loads((folder / SIZES_FILE).read_text())
        if all((folder / name).stat().st_size == size for name, size in sizes.items()):
            # "c": tensors share the memory, and those of read-only memory are refused.
            return {
                name.removesuffix(".npy"): np.load(folder / name, mmap_mode="c") for name in sizes
            }
    log_to_stderr(f"The cached arrays in {folder} are damaged; they are made again.")
    return None

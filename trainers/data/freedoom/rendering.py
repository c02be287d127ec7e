"""Renders sets in worker processes, and keeps them in the cache with a checksum."""

import tempfile
import time
import zipfile
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.utils.cache import cache_directory
from trainers.utils.cache import exclusive
from trainers.utils.cache import is_intact
from trainers.utils.cache import replaced_file
from trainers.utils.cache import write_checksum
from trainers.utils.errors import DataError
from trainers.utils.reporting import log_to_stderr
from trainers.utils.subprocesses import Job
from trainers.utils.subprocesses import default_workers
from trainers.utils.subprocesses import run_jobs

Arrays = dict[str, NDArray[Any]]


def rendered_path(name: str, split: str, fingerprint: str) -> Path:
    """Returns the path of a split's cache file, whether or not the file exists.

    `fingerprint` is a hash of everything that decides the bytes.
    """
    return cache_directory() / name / f"{split}-{fingerprint}.npz"


def cached_arrays(
    path: Path, keys: Sequence[str], things: str, render: Callable[[], Arrays]
) -> Arrays:
    """Reads arrays from the cache; renders them first if they are not there.

    One of `keys` is "labels"; `things` says in the plural what a label belongs to, for messages.
    Raises DataError if rendering failed or gave nothing.
    """
    arrays = _load(path, keys)
    if arrays is None:
        # Of two processes that start together, one renders and the other waits.
        with exclusive(path.with_suffix(".lock")):
            arrays = _load(path, keys)
            if arrays is None:
                arrays = _render_into(path, things, render)
    return arrays


def render_jobs(
    jobs: Mapping[str, str], module: str, description: str, workers: int | None
) -> Arrays:
    """Runs one worker process per job, and joins what they render in the order of the jobs.

    Args:
        jobs: what to render, as JSON, by name.
        module: started as `python -m module JOB OUTPUT.npz`.
        description: the words before the progress bar.
        workers: number of processes alive at once; None for one per core, at most 8.

    Raises:
        DataError: a worker failed.
    """
    with tempfile.TemporaryDirectory(prefix="tokenlearner-") as directory:
        outputs = {name: Path(directory) / f"{name}.npz" for name in jobs}
        commands = [Job(name, module, (text, str(outputs[name]))) for name, text in jobs.items()]
        run_jobs(commands, description, workers or default_workers())
        parts = [_read(output) for output in outputs.values()]
    return {key: np.concatenate([part.pop(key) for part in parts]) for key in list(parts[0])}


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays for `render_jobs` or the cache to read."""
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def _render_into(path: Path, things: str, render: Callable[[], Arrays]) -> Arrays:
    start = time.monotonic()
    arrays = render()
    count = len(arrays["labels"])
    if not count:
        raise DataError(f"Rendering {path.stem} gave no {things}; expected at least one.")
    with replaced_file(path) as temporary:
        save_arrays(temporary, arrays)
    write_checksum(path)
    seconds = time.monotonic() - start
    log_to_stderr(f"{count} {things} in {seconds:.0f} s, kept in {path}")
    return arrays


def _load(path: Path, keys: Sequence[str]) -> Arrays | None:
    if not path.exists():
        return None
    if is_intact(path):
        try:
            arrays = _read(path)
            return {key: arrays[key] for key in keys}
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            pass  # the digest matches a file that was never good
    log_to_stderr(f"The cached file {path} is damaged; it is rendered again.")
    return None


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)

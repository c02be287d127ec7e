"""Checkpoints that are all or nothing.

A checkpoint is a directory `step_00001000` with `arrays.npz` and `manifest.json`,
which holds the size and the sha256 of the arrays' file. It is written under another
name, forced to disk and renamed; a directory without a valid manifest is none.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.errors import ConfigurationError

Arrays = dict[str, NDArray[Any]]

_ARRAYS = "arrays.npz"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"step_(\d{8,})")


class CheckpointStore:
    """Saves and finds the checkpoints of one work directory.

    Args:
        directory: Holds the checkpoints; created when needed.
        keep: How many of the newest stay.
        report: Called with a line when a damaged checkpoint is passed over.
    """

    def __init__(
        self, directory: str | Path, keep: int, report: Callable[[str], None] = print
    ) -> None:
        if keep < 1:
            raise ConfigurationError(f"keep_checkpoints must be at least 1. Got {keep}.")
        self.directory = Path(directory)
        self.keep = keep
        self.report = report

    def steps(self) -> list[int]:
        """Returns the steps of all finished checkpoints, ascending, valid or not."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, arrays: Arrays) -> None:
        """Writes a checkpoint and removes those that are too old.

        Args:
            step: Steps done.
            arrays: Everything that the next step reads.
        """
        final = self._path(step)
        for left in self.directory.glob(".partial-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial = final.with_name(f".partial-{final.name}")
        partial.mkdir(parents=True)
        payload = _to_bytes(arrays)
        _write(partial / _ARRAYS, payload)
        manifest = {
            "step": step,
            "file": _ARRAYS,
            "bytes": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        _write(partial / _MANIFEST, json.dumps(manifest, indent=2).encode())
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _force_directory(self.directory)
        # Later ones are damaged, or the run would have gone on from there.
        older = [other for other in self.steps() if other <= step]
        for old in older[: -self.keep]:
            shutil.rmtree(self._path(old), ignore_errors=True)

    def load_newest(self) -> tuple[int, Arrays] | None:
        """Returns step and arrays of the newest valid checkpoint; None if there is none.

        A damaged one is reported and passed over.
        """
        for step in reversed(self.steps()):
            try:
                return step, self._load(step)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.report(f"checkpoint {self._path(step)} is damaged, skipped: {error}")
        return None

    def _load(self, step: int) -> Arrays:
        path = self._path(step)
        manifest = json.loads((path / _MANIFEST).read_bytes())
        payload = (path / _ARRAYS).read_bytes()
        if len(payload) != manifest["bytes"]:
            raise ValueError(f"{len(payload)} bytes where {manifest['bytes']} were saved")
        if hashlib.sha256(payload).hexdigest() != manifest["sha256"]:
            raise ValueError("its sha256 is not the one that was saved")
        with np.load(io.BytesIO(payload), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def _path(self, step: int) -> Path:
        return self.directory / f"step_{step:08d}"


def write_atomically(path: Path, payload: bytes) -> None:
    """Writes a file under another name, forces it to disk and renames it."""
    partial = path.with_name(f".partial-{path.name}")
    _write(partial, payload)
    os.replace(partial, path)
    _force_directory(path.parent)


def _to_bytes(arrays: Arrays) -> bytes:
    for name, value in arrays.items():
        if value.dtype.hasobject:  # would be pickled, and could not be loaded safely
            raise TypeError(f"{name!r} holds Python objects and cannot be saved")
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(sorted(arrays.items()))
    # NumPy before 2.2 has no allow_pickle here: it would save it as an array.
    np.savez(buffer, **named)
    return buffer.getvalue()


def _write(path: Path, payload: bytes) -> None:
    with open(path, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _force_directory(path: Path) -> None:
    """Forces a rename to disk, where the system can (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

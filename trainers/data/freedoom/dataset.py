"""Loads the built-in sets of images and clips, rendered from the Freedoom maps.

`freedoom_objects`: twenty kinds of things (monsters and items) cut out of rendered frames, each
with the mask of the object. `freedoom_scenes`: whole frames with such things, small in view, and
their masks. `freedoom_motion` and `freedoom_multilabel`: a player stands, walks, turns and looks.
`freedoom_route`: a player turns twice, the same way or opposite ways. The labels of every clip are
checked against the engine's own position, angle and pitch.

Rendered from `freedoom2.wad`, Copyright (c) 2001-2018 Contributors to the Freedoom
project, 3-clause BSD licence, by the engine in the package `vizdoom` (MIT licence).
"""

import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainers.data.freedoom.engine import engine_version
from trainers.data.freedoom.engine import import_vizdoom
from trainers.data.freedoom.options import FreedoomOptions
from trainers.data.freedoom.options import MotionOptions
from trainers.data.freedoom.options import RenderOptions
from trainers.data.freedoom.task_options import RouteOptions
from trainers.data.freedoom.task_options import SceneOptions
from trainers.utils.array_cache import Arrays
from trainers.utils.array_cache import cached_arrays
from trainers.utils.cache import cache_directory
from trainers.utils.cache import is_intact
from trainers.utils.cache import replaced_file
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.lock import locked
from trainers.utils.reporting import log_to_stderr
from trainers.utils.subprocesses import Job
from trainers.utils.subprocesses import default_workers
from trainers.utils.subprocesses import run_jobs

Options = TypeVar("Options", bound=RenderOptions)

#: The sets by their names in `data.source`.
STANDARD_SETS: dict[str, RenderOptions] = {
    options.name: options
    for options in (
        FreedoomOptions(),
        SceneOptions(),
        MotionOptions(),
        MotionOptions(multi_label=True),
        RouteOptions(),
    )
}


@dataclass(frozen=True)
class RenderedImages:
    """Images of objects with their class and where the object is.

    Attributes:
        images: (count, size, size, 3) uint8.
        labels: (count,) int64, positions in `CLASS_NAMES`.
        masks: (count, size, size) bool, True where the object is visible.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]


def load_freedoom_objects(split: str) -> RenderedImages:
    """Loads one split of the standard image set; see `load_rendered`."""
    return RenderedImages(**load_rendered(split, FreedoomOptions()))


def load_rendered(split: str, options: RenderOptions) -> Arrays:
    """Loads one split of a set from the cache; renders it first if it is not there.

    Returns:
        Of images the attributes of `RenderedImages`. Of clips "videos", (count, num_frames, size,
        size, 3) uint8, and "labels", (count,) int64, positions in `options.class_names`, or with
        several labels (count, 8) float32, zeros and ones. What `freedoom_scenes` and
        `freedoom_route` have beside pixels and labels is in `render_scenes.render_map` and
        `render_routes.render_map`; their arrays are read from the disk as they are used.

    Raises:
        ConfigurationError: unknown split, or `vizdoom` is not installed.
        DataError: rendering failed or gave nothing.
    """
    if split not in options.splits:
        raise ConfigurationError(
            f"{options.name} has the splits {sorted(options.splits)}, received {split!r}."
        )
    path = cache_path(split, options)
    if options.is_mapped:
        return cached_arrays(path, _description(split, options), partial(_jobs, split, options))
    arrays = _load(path)
    if arrays is None:
        # Of two processes that start together, one renders and the other waits.
        with locked(path.with_suffix(".lock")):
            arrays = _load(path)
            if arrays is None:
                arrays = _render_into(path, split, options)
    return arrays


def cache_path(split: str, options: RenderOptions) -> Path:
    """Returns the path of a split's file or folder in the cache, whether or not it exists."""
    fingerprint = options.fingerprint(split, engine_version())
    suffix = "" if options.is_mapped else ".npz"
    return cache_directory() / options.name / f"{split}-{fingerprint}{suffix}"


def render_split(split: str, options: RenderOptions, workers: int | None = None) -> Arrays:
    """Renders one split, with one process per map; the examples are in the order of the maps.

    The result does not depend on `workers`, the number of processes alive at once; None is one
    per core, at most 8.
    """
    with tempfile.TemporaryDirectory(prefix="tokenlearner-") as directory:
        jobs = _jobs(split, options, Path(directory))
        description = _description(split, options)
        run_jobs(list(jobs.values()), description, workers or default_workers())
        parts = [_read(output) for output in jobs]
    return {key: np.concatenate([part.pop(key) for part in parts]) for key in list(parts[0])}


def run_worker(
    options_class: type[Options], render_map: Callable[[str, int, Options], Arrays]
) -> None:
    """Renders one map for `render_split`, which gives the arguments of the command line."""
    map_name, count, options, output = sys.argv[1:]
    _write(Path(output), render_map(map_name, int(count), options_class.from_json(options)))


def _description(split: str, options: RenderOptions) -> str:
    return f"Rendering {options.name}, {split} maps"


def _jobs(split: str, options: RenderOptions, folder: Path) -> dict[Path, Job]:
    """Returns the job of each map, by the file that it writes."""
    import_vizdoom()
    chosen = options.splits[split]
    jobs = {}
    for name in chosen.maps:
        output = folder / f"{name}.npz"
        arguments = (name, str(chosen.count), options.to_json(), str(output))
        jobs[output] = Job(name, options.module, arguments)
    return jobs


def _render_into(path: Path, split: str, options: RenderOptions) -> Arrays:
    start = time.monotonic()
    arrays = render_split(split, options)
    count = len(arrays["labels"])
    if not count:
        raise DataError(f"Rendering {path.stem} gave no {options.examples}; expected at least one.")
    with replaced_file(path) as temporary:
        _write(temporary, arrays)
    seconds = time.monotonic() - start
    log_to_stderr(f"{count} {options.examples} in {seconds:.0f} s, kept in {path}")
    return arrays


def _load(path: Path) -> Arrays | None:
    if not path.exists():
        return None
    if is_intact(path):
        try:
            return _read(path)
        except (OSError, ValueError, zipfile.BadZipFile):
            pass  # the digest matches a file that was never good
    log_to_stderr(f"The cached file {path} is damaged; it is rendered again.")
    return None


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, **arrays)

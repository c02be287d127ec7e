"""The built-in image set: objects in rooms, rendered from the Freedoom maps.

Twenty kinds of things (monsters and items) cut out of rendered frames, 64x64 RGB.
Train, validation and test images come from different maps. Every example also has
the mask of the object itself, so attention maps can be compared with it.

Rendered from `freedoom2.wad`, Copyright (c) 2001-2018 Contributors to the Freedoom
project, 3-clause BSD licence, by the engine in the package `vizdoom` (MIT licence).
"""

import importlib.metadata
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from trainers.data.cache import cache_directory
from trainers.data.cache import exclusive
from trainers.data.cache import is_intact
from trainers.data.cache import replaced_file
from trainers.data.cache import write_checksum
from trainers.data.freedoom_options import FreedoomOptions
from trainers.data.freedoom_renderer import RenderedImages
from trainers.data.freedoom_renderer import split_jobs
from trainers.data.freedoom_scene import import_vizdoom
from trainers.data.worker_processes import Job
from trainers.data.worker_processes import default_workers
from trainers.data.worker_processes import run_jobs
from trainers.errors import ConfigurationError
from trainers.errors import DataError


def load_freedoom_objects(
    split: str,
    options: FreedoomOptions | None = None,
    workers: int | None = None,
) -> RenderedImages:
    """Loads one split from the cache; renders it first if it is not there.

    Args:
        split: "train", "validation" or "test".
        options: what to render; None for the standard set.
        workers: number of processes that render; None for one a core, at most 8.
            The result does not depend on it.

    Returns:
        Images, labels and masks.

    Raises:
        ConfigurationError: unknown split, or `vizdoom` is not installed.
        DataError: rendering failed.
    """
    options = options or FreedoomOptions()
    if split not in options.splits:
        raise ConfigurationError(
            f"freedoom_objects has the splits {sorted(options.splits)}, received {split!r}."
        )
    path = cache_path(split, options)
    loaded = _load(path)
    if loaded is None:
        # Of two processes that start together one renders and the other one waits.
        with exclusive(path.with_suffix(".lock")):
            loaded = _load(path)
            if loaded is None:
                loaded = _render_into(path, split, options, workers)
    return loaded


def cache_path(split: str, options: FreedoomOptions) -> Path:
    """Names the cache file of one split.

    Args:
        split: a key of `options.splits`.
        options: what to render.

    Returns:
        A path under the cache directory, whether or not the file is there.

    Raises:
        ConfigurationError: `vizdoom` is not installed.
    """
    try:
        version = importlib.metadata.version("vizdoom")
    except importlib.metadata.PackageNotFoundError:
        version = str(import_vizdoom().__version__)
    fingerprint = options.fingerprint(split, version)
    return cache_directory() / "freedoom_objects" / f"{split}-{fingerprint}.npz"


def render_split(
    split: str, options: FreedoomOptions, workers: int | None = None
) -> RenderedImages:
    """Renders one split, one process a map.

    Args:
        split: a key of `options.splits`.
        options: what to render.
        workers: number of processes alive at once; None for one a core, at most 8.

    Returns:
        Images ordered by map, then by class.

    Raises:
        ConfigurationError: `vizdoom` is not installed.
        DataError: a worker failed.
    """
    import_vizdoom()
    with tempfile.TemporaryDirectory(prefix="tokenlearner-") as directory:
        jobs, outputs = [], []
        for job in split_jobs(options, split):
            output = Path(directory) / f"{job.map_name}.npz"
            arguments = (job.to_json(), str(output))
            module = "trainers.data.freedoom_renderer"
            jobs.append(Job(job.map_name, module, arguments))
            outputs.append(output)
        description = f"Rendering freedoom_objects, {split} maps"
        run_jobs(jobs, description, workers or default_workers())
        parts = [_read(output) for output in outputs]
    return RenderedImages(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        masks=np.concatenate([part.masks for part in parts]),
    )


def _render_into(
    path: Path, split: str, options: FreedoomOptions, workers: int | None
) -> RenderedImages:
    start = time.monotonic()
    rendered = render_split(split, options, workers)
    if not len(rendered.labels):
        raise DataError(f"Rendering the split {split!r} gave no image: {options}.")
    _save(path, rendered)
    seconds = time.monotonic() - start
    _say(f"{len(rendered.labels)} images in {seconds:.0f} s, kept in {path}")
    return rendered


def _save(path: Path, rendered: RenderedImages) -> None:
    with replaced_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            images=rendered.images,
            labels=rendered.labels,
            masks=rendered.masks,
        )
    write_checksum(path)


def _load(path: Path) -> RenderedImages | None:
    if not path.exists():
        return None
    if is_intact(path):
        try:
            return _read(path)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            pass  # the digest agrees with a file that was never good
    _say(f"The cached file {path} is damaged; it is rendered again.")
    return None


def _read(path: Path) -> RenderedImages:
    with np.load(path, allow_pickle=False) as arrays:
        return RenderedImages(arrays["images"], arrays["labels"], arrays["masks"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

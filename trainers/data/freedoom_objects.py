"""The built-in image set: objects in rooms, rendered from the Freedoom maps.

Twenty kinds of things (monsters and items) cut out of rendered frames, 64x64 RGB.
Train, validation and test images come from different maps. Every example also has
the mask of the object itself, so attention maps can be compared with it.

Rendered from `freedoom2.wad`, Copyright (c) 2001-2018 Contributors to the Freedoom
project, 3-clause BSD licence, by the engine in the package `vizdoom` (MIT licence).
"""

from pathlib import Path

from trainers.data.freedoom_engine import engine_version
from trainers.data.freedoom_engine import import_vizdoom
from trainers.data.freedoom_options import FreedoomOptions
from trainers.data.freedoom_renderer import RenderedImages
from trainers.data.freedoom_renderer import split_jobs
from trainers.data.rendered_arrays import cached_arrays
from trainers.data.rendered_arrays import render_jobs
from trainers.data.rendered_arrays import rendered_path
from trainers.utils.errors import ConfigurationError

NAME = "freedoom_objects"
KEYS = ("images", "labels", "masks")


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
            f"{NAME} has the splits {sorted(options.splits)}, received {split!r}."
        )
    arrays = cached_arrays(
        cache_path(split, options),
        KEYS,
        "images",
        lambda: vars(render_split(split, options, workers)),
    )
    return RenderedImages(**arrays)


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
    return rendered_path(NAME, split, options.fingerprint(split, engine_version()))


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
    jobs = {job.map_name: job.to_json() for job in split_jobs(options, split)}
    description = f"Rendering {NAME}, {split} maps"
    arrays = render_jobs(jobs, "trainers.data.freedoom_renderer", description, workers)
    return RenderedImages(**arrays)

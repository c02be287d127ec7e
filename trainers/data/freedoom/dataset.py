"""Loads the built-in image set and clip sets, rendered from the Freedoom maps.

`freedoom_objects`: twenty kinds of things (monsters and items) cut out of rendered frames,
64x64 RGB. Every example also has the mask of the object itself, so attention maps can be
compared with it.

`freedoom_motion` and `freedoom_multilabel`: a player stands, walks, turns and looks, 16
frames of 64x64 RGB. The first has one motion or none in a clip (nine classes, equally many
clips of each), the second any set of motions, one per axis. The labels of every clip are
checked against the engine's own position, angle and pitch.

Train, validation and test examples come from different maps.

Rendered from `freedoom2.wad`, Copyright (c) 2001-2018 Contributors to the Freedoom
project, 3-clause BSD licence, by the engine in the package `vizdoom` (MIT licence).
"""

from pathlib import Path

from trainers.data.datasets.in_memory import InMemoryVideoSource
from trainers.data.freedoom.engine import engine_version
from trainers.data.freedoom.engine import import_vizdoom
from trainers.data.freedoom.options import FreedoomOptions
from trainers.data.freedoom.options import MotionOptions
from trainers.data.freedoom.render_clips import RenderedClips
from trainers.data.freedoom.render_clips import motion_jobs
from trainers.data.freedoom.render_images import RenderedImages
from trainers.data.freedoom.render_images import split_jobs
from trainers.data.freedoom.rendering import cached_arrays
from trainers.data.freedoom.rendering import render_jobs
from trainers.data.freedoom.rendering import rendered_path
from trainers.utils.errors import ConfigurationError

NAME = "freedoom_objects"
IMAGE_KEYS = ("images", "labels", "masks")


def load_freedoom_objects(
    split: str,
    options: FreedoomOptions | None = None,
    workers: int | None = None,
) -> RenderedImages:
    """Loads one split from the cache; renders it first if it is not there.

    Args:
        split: "train", "validation" or "test".
        options: what to render; None for the standard set.
        workers: number of processes that render; None for one per core, at most 8.
            The result does not depend on it.

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
        image_cache_path(split, options),
        IMAGE_KEYS,
        "images",
        lambda: vars(render_images(split, options, workers)),
    )
    return RenderedImages(**arrays)


def image_cache_path(split: str, options: FreedoomOptions) -> Path:
    """Returns the path of a split's cache file, whether or not the file exists."""
    return rendered_path(NAME, split, options.fingerprint(split, engine_version()))


def render_images(
    split: str, options: FreedoomOptions, workers: int | None = None
) -> RenderedImages:
    """Renders one split, with one process per map; the images are ordered by map, then by class."""
    import_vizdoom()
    jobs = {job.map_name: job.to_json() for job in split_jobs(options, split)}
    description = f"Rendering {NAME}, {split} maps"
    arrays = render_jobs(jobs, "trainers.data.freedoom.render_images", description, workers)
    return RenderedImages(**arrays)


SINGLE_LABEL = "freedoom_motion"
MULTI_LABEL = "freedoom_multilabel"
CLIP_KEYS = ("videos", "labels")


def freedoom_motion_source(
    split: str, options: MotionOptions | None = None, workers: int | None = None
) -> InMemoryVideoSource:
    """Opens one split of the clips as a data source; see `load_freedoom_motion`."""
    options = options or MotionOptions()
    clips = load_freedoom_motion(split, options, workers)
    return InMemoryVideoSource(
        set_name(options),
        split,
        clips.videos,
        clips.labels,
        options.class_names,
        options.mirrored_classes,
    )


def load_freedoom_motion(
    split: str, options: MotionOptions | None = None, workers: int | None = None
) -> RenderedClips:
    """Loads one split from the cache; renders it first if it is not there.

    See `load_freedoom_objects`; the standard set is `freedoom_motion`.
    """
    options = options or MotionOptions()
    if split not in options.splits:
        raise ConfigurationError(
            f"{set_name(options)} has the splits {sorted(options.splits)}, received {split!r}."
        )
    arrays = cached_arrays(
        clip_cache_path(split, options),
        CLIP_KEYS,
        "clips",
        lambda: vars(render_clips(split, options, workers)),
    )
    return RenderedClips(**arrays)


def set_name(options: MotionOptions) -> str:
    """Returns the name of the set in `data.source`."""
    return MULTI_LABEL if options.multi_label else SINGLE_LABEL


def clip_cache_path(split: str, options: MotionOptions) -> Path:
    """Returns the path of a split's cache file, whether or not the file exists."""
    return rendered_path(set_name(options), split, options.fingerprint(split, engine_version()))


def render_clips(split: str, options: MotionOptions, workers: int | None = None) -> RenderedClips:
    """Renders one split, with one process per map; the clips are ordered by map."""
    import_vizdoom()
    jobs = {job.map_name: job.to_json() for job in motion_jobs(options, split)}
    description = f"Rendering {set_name(options)}, {split} maps"
    arrays = render_jobs(jobs, "trainers.data.freedoom.render_clips", description, workers)
    return RenderedClips(**arrays)

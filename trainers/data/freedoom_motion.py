"""The built-in clips: what a player does, filmed in the Freedoom maps.

Standing, walking, turning and looking in four axes, 16 frames of 64x64 RGB. Two sets:
`freedoom_motion` with one motion or none in a clip (nine classes, equally many clips of
each) and `freedoom_multilabel` with any set of motions, one an axis. Train, validation and
test clips come from different maps. What a label says is checked in every clip against the
engine's own position, angle and pitch.

Rendered from `freedoom2.wad`, Copyright (c) 2001-2018 Contributors to the Freedoom
project, 3-clause BSD licence, by the engine in the package `vizdoom` (MIT licence).
"""

from pathlib import Path

from trainers.data.datasets.in_memory import InMemoryVideoSource
from trainers.data.freedoom_engine import engine_version
from trainers.data.freedoom_engine import import_vizdoom
from trainers.data.freedoom_motion_options import MotionOptions
from trainers.data.freedoom_motion_renderer import RenderedClips
from trainers.data.freedoom_motion_renderer import split_jobs
from trainers.data.rendered_arrays import cached_arrays
from trainers.data.rendered_arrays import render_jobs
from trainers.data.rendered_arrays import rendered_path
from trainers.utils.errors import ConfigurationError

SINGLE_LABEL = "freedoom_motion"
MULTI_LABEL = "freedoom_multilabel"
KEYS = ("videos", "labels")


def freedoom_motion_source(
    split: str, options: MotionOptions | None = None, workers: int | None = None
) -> InMemoryVideoSource:
    """Opens one split of the clips as a data source.

    Args:
        split: "train", "validation" or "test".
        options: what to render; None for the standard set `freedoom_motion`.
        workers: as for `load_freedoom_motion`.

    Returns:
        The source, named after the set.

    Raises:
        ConfigurationError: unknown split, or `vizdoom` is not installed.
        DataError: rendering failed.
    """
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

    Args:
        split: "train", "validation" or "test".
        options: what to render; None for the standard set `freedoom_motion`.
        workers: number of processes that render; None for one a core, at most 8.
            The result does not depend on it.

    Returns:
        Videos and labels.

    Raises:
        ConfigurationError: unknown split, or `vizdoom` is not installed.
        DataError: rendering failed.
    """
    options = options or MotionOptions()
    if split not in options.splits:
        raise ConfigurationError(
            f"{set_name(options)} has the splits {sorted(options.splits)}, received {split!r}."
        )
    arrays = cached_arrays(
        cache_path(split, options),
        KEYS,
        "clips",
        lambda: vars(render_split(split, options, workers)),
    )
    return RenderedClips(**arrays)


def set_name(options: MotionOptions) -> str:
    """Names the set as in `data.source`.

    Args:
        options: what to render.

    Returns:
        `freedoom_motion` or `freedoom_multilabel`.
    """
    return MULTI_LABEL if options.several_labels else SINGLE_LABEL


def cache_path(split: str, options: MotionOptions) -> Path:
    """Names the cache file of one split.

    Args:
        split: a key of `options.splits`.
        options: what to render.

    Returns:
        A path under the cache directory, whether or not the file is there.

    Raises:
        ConfigurationError: `vizdoom` is not installed.
    """
    return rendered_path(set_name(options), split, options.fingerprint(split, engine_version()))


def render_split(split: str, options: MotionOptions, workers: int | None = None) -> RenderedClips:
    """Renders one split, one process a map.

    Args:
        split: a key of `options.splits`.
        options: what to render.
        workers: number of processes alive at once; None for one a core, at most 8.

    Returns:
        Clips ordered by map.

    Raises:
        ConfigurationError: `vizdoom` is not installed.
        DataError: a worker failed.
    """
    import_vizdoom()
    jobs = {job.map_name: job.to_json() for job in split_jobs(options, split)}
    description = f"Rendering {set_name(options)}, {split} maps"
    arrays = render_jobs(jobs, "trainers.data.freedoom_motion_renderer", description, workers)
    return RenderedClips(**arrays)

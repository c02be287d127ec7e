"""Pictures of attention maps: images and videos under what their tokens look at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

_ORANGE = np.array([0.95, 0.3, 0.0], "float32")
_YELLOW = np.array([1.0, 0.9, 0.2], "float32")
_CELL_WIDTH = 1.15  # Inches
_FONT_SIZE = 8
_MOST_FRAMES = 8  # Side by side, of all strips together


def plot_attention_maps(
    images: Any,
    maps: Any,
    path: str | Path | None = None,
    titles: list[str] | None = None,
    per_frame: bool = True,
) -> Any:
    """Draws images or videos, and under each token's attention map.

    An image becomes a row: the image, then it under the map of each token. A video becomes a strip:
    a row of its frames, then the same frames under the maps of each token, one row per token, also
    of a token of the whole clip, whose one map fills the row; strips of few frames stand side by
    side. If the maps have fewer time steps than the video has frames, the frames are cut into that
    many equal runs (tubelets) and the one in the middle of each is shown; of a model that samples
    frames pass the frames that it took.

    Each map is shown on its own scale, from nothing to its largest value; for video that of a token
    over the whole clip, so that its frames compare.

    Args:
        images: `(batch, height, width, 3)` or `(batch, time, height, width, 3)`, uint8 or floats in
            [0, 1]; grey ones have 1 channel.
        maps: `(batch, num_tokens, grid_height, grid_width)`, for videos `(batch, steps, num_tokens,
            grid_height, grid_width)`; or what `tk.attention_maps` returns, of a model with one
            TokenLearner.
        path: Where to write the picture (PNG, PDF, SVG by suffix). None: nowhere.
        titles: A line of text for each image or video.
        per_frame: Of videos: False for the maps of a layer with `per_frame=False`, `(batch,
            num_tokens, steps, grid_height, grid_width)`.

    Returns:
        The Matplotlib figure.

    Raises:
        ImportError: If Matplotlib is not installed.
        ValueError: If the shapes do not fit, the images are not pictures, or there are maps of
            several TokenLearners.
    """
    images, maps = np.asarray(images), np.asarray(_only(maps))
    if not per_frame and maps.ndim == 5:
        maps = maps.swapaxes(1, 2)  # (B, T, S, H, W)
    images, maps = _checked(images, maps, titles)
    draw = _draw_images if images.ndim == 4 else _draw_videos
    figure = draw(images, maps, titles)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def _draw_images(images: np.ndarray, maps: np.ndarray, titles: list[str] | None) -> Any:
    rows, columns = len(images), maps.shape[1] + 1
    figure = _figure(rows, columns, images)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (image, image_maps) in enumerate(zip(images, maps, strict=True)):
        axes[row, 0].imshow(image)
        if titles is not None:
            _title(axes[row, 0], titles[row])
        for column, weights in enumerate(image_maps, start=1):
            axes[row, column].imshow(overlay(image, weights))
            if row == 0:
                _title(axes[row, column], f"token {column}")
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def _draw_videos(videos: np.ndarray, maps: np.ndarray, titles: list[str] | None) -> Any:
    steps, num_tokens = maps.shape[1:3]
    frames = _middle_frames(videos.shape[1], steps)
    rows = num_tokens + 1
    abreast = min(len(videos), max(1, _MOST_FRAMES // steps))
    stacked = -(-len(videos) // abreast)
    figure = _figure(stacked * rows, abreast * steps, videos, margin=0.6 * abreast)
    strips = figure.subfigures(stacked, abreast, squeeze=False).flat
    # The last row may have places left over.
    for number, (strip, video, video_maps) in enumerate(zip(strips, videos, maps, strict=False)):
        axes = strip.subplots(rows, steps, squeeze=False)
        if titles is not None:
            strip.suptitle(str(titles[number]), fontsize=_FONT_SIZE + 1, parse_math=False)
        for column, frame in enumerate(frames):
            _title(axes[0, column], f"frame {frame + 1}")
            axes[0, column].imshow(video[frame])
            for token in range(num_tokens):
                peak = video_maps[:, token].max()
                picture = overlay(video[frame], video_maps[column, token], peak)
                axes[token + 1, column].imshow(picture)
        for row in range(rows):
            label = f"token {row}" if row else "video"
            axes[row, 0].set_ylabel(label, fontsize=_FONT_SIZE, rotation=0, ha="right", va="center")
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[], frame_on=False)
    return figure


def _middle_frames(num_frames: int, steps: int) -> list[int]:
    """Returns the frame in the middle of each of `steps` equal runs of frames."""
    return [int((step + 0.5) * num_frames / steps) for step in range(steps)]


def _title(axis: Any, text: str) -> None:
    axis.set_title(str(text), fontsize=_FONT_SIZE, parse_math=False)


def overlay(image: np.ndarray, weights: np.ndarray, peak: float | None = None) -> np.ndarray:
    """Returns a grey image with a map over it, from clear over orange to yellow.

    Args:
        image: `(height, width, 3)`, floats in [0, 1], as the result.
        weights: `(grid_height, grid_width)`, not negative, any scale.
        peak: The value shown in yellow. None: the largest of this map.
    """
    height, width = image.shape[:2]
    peak = float(weights.max() if peak is None else peak)
    heat = _enlarge(weights / peak if peak > 0 else weights, height, width)[..., None]
    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    # Dark pictures stay readable under the colour.
    grey = 0.9 * grey**0.7
    colour = (1 - heat) * _ORANGE + heat * _YELLOW
    opacity = 0.8 * heat
    return np.clip(grey * (1 - opacity) + colour * opacity, 0, 1)


def _enlarge(weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a map at the size of its image, bilinear between patch centres."""
    resized = keras.ops.image.resize(
        weights[..., None].astype("float32"), (height, width), data_format="channels_last"
    )
    return keras.ops.convert_to_numpy(resized)[..., 0]


def _only(maps: Any) -> Any:
    """Returns the maps, also from a dictionary that holds those of one TokenLearner."""
    if not isinstance(maps, Mapping):
        return maps
    if len(maps) != 1:
        raise ValueError(
            "plot_attention_maps draws the maps of one TokenLearner. Received those of "
            f"{', '.join(map(repr, maps)) or 'none'}. Pass one of them, maps[name]."
        )
    return next(iter(maps.values()))


def _checked(
    images: np.ndarray, maps: np.ndarray, titles: list[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    rank = images.ndim
    fits = rank in (4, 5) and images.shape[-1] in (1, 3) and maps.ndim == rank
    fits = fits and (rank == 4 or 1 <= maps.shape[1] <= images.shape[1])
    fits = fits and len(images) == len(maps)
    if not fits or len(images if titles is None else titles) != len(images):
        raise ValueError(
            "Expected images (batch, height, width, 3) and maps (batch, num_tokens, grid_height, "
            "grid_width), or videos (batch, time, height, width, 3) and maps (batch, steps, "
            "num_tokens, grid_height, grid_width) with no more steps than frames (of whole clips, "
            "with per_frame=False, the tokens before the steps), and as many titles. Grey images "
            "have 1 channel in place of 3. Received "
            f"images of shape {images.shape}, maps of shape {maps.shape} and "
            f"{len(titles) if titles is not None else 'no'} titles.{_hint(images, maps)}"
        )
    if np.issubdtype(images.dtype, np.integer):
        images = images.astype("float32") / 255
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 1.0)
    if images.size == 0 or not (low >= 0 and high <= 1):
        raise ValueError(
            "Expected at least one image, of integers in [0, 255] or floats in [0, 1]. Received "
            f"shape {images.shape}, values from {low:g} to {high:g}. Undo the normalisation first."
        )
    return images if images.shape[-1] == 3 else images.repeat(3, axis=-1), maps


def _hint(images: np.ndarray, maps: np.ndarray) -> str:
    """Returns what to do about a single image or video."""
    if images.ndim == 3:
        return " Add a batch axis, image[None]."
    if images.ndim != 4 or len(images) == len(maps):
        return ""
    return {
        4: " Of one clip and its maps, add a batch axis to both: clip[None], maps[None].",
        5: " Add a batch axis, clip[None].",
    }.get(maps.ndim, "")


def _figure(rows: int, columns: int, images: np.ndarray, margin: float = 0.0) -> Any:
    """Returns an empty figure for a table of pictures; the margin is for labels, in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_attention_maps needs Matplotlib: pip install '.[plots]' in a clone"
        ) from error
    height, width = images.shape[-3:-1]
    size = (_CELL_WIDTH * columns + margin, (_CELL_WIDTH * height / width + 0.1) * rows)
    # A plain Figure, not pyplot's: no display, no global state to clean up.
    return Figure(figsize=size, layout="constrained")

"""Pictures of attention maps."""

from pathlib import Path

import numpy as np
import pytest

import tokenlearner_keras as tk
from tokenlearner_keras.visualize import overlay


@pytest.mark.parametrize("value", [-1.0, 255.0, np.nan])
def test_values_that_are_no_colours_are_refused(value: float) -> None:
    images = np.full((1, 8, 8, 3), value, "float32")
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]"):
        tk.plot_attention_maps(images, np.ones((1, 2, 2, 2), "float32"))


def test_titles_are_plain_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    images, maps = np.zeros((2, 8, 8, 3), "uint8"), np.ones((2, 1, 2, 2), "float32")
    titles = np.array(["$a", "a$b$"])
    tk.plot_attention_maps(images, maps, tmp_path / "maps.png", titles)
    with pytest.raises(ValueError, match="0 titles"):
        tk.plot_attention_maps(images, maps, titles=[])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_plot_writes_a_picture(dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    images = np.full((2, 32, 48, 3), 128 if dtype == "uint8" else 0.5, dtype)
    maps = np.zeros((2, 3, 4, 6), "float32")
    maps[:, 1, :2] = 1
    path = tmp_path / "maps.png"
    figure = tk.plot_attention_maps(images, maps, path, titles=["one", "two"])
    assert len(figure.axes) == 2 * 4
    assert np.asarray(Image.open(path)).std() > 0


def test_overlay_colours_what_the_map_looks_at() -> None:
    weights = np.zeros((4, 6), "float32")
    weights[0, 0] = 0.2
    picture = overlay(np.full((32, 48, 3), 0.5, "float32"), weights)
    warmth = picture[..., 0] - picture[..., 2]
    assert picture.shape == (32, 48, 3)
    assert warmth[:8, :8].mean() > 0.2 and np.all(warmth[16:, 24:] == 0)


def test_shapes_that_do_not_fit() -> None:
    pytest.importorskip("matplotlib")
    for images, maps in (
        ((2, 8, 8, 3), (3, 4, 2, 2)),
        ((2, 8, 8, 3), (2, 3, 4, 2, 2)),
        ((2, 4, 8, 8, 3), (2, 4, 2, 2)),
        ((2, 4, 8, 8, 3), (2, 5, 4, 2, 2)),
        ((2, 8, 8, 2), (2, 4, 2, 2)),
    ):
        with pytest.raises(ValueError, match="Expected images .* Received images of shape"):
            tk.plot_attention_maps(np.zeros(images), np.zeros(maps))


@pytest.mark.parametrize(
    ("image", "maps", "message"),
    [
        ((8, 8, 3), (1, 4, 2, 2), r"Add a batch axis, image\[None\]"),
        ((4, 8, 8, 3), (1, 4, 3, 2, 2), r"Add a batch axis, clip\[None\]"),
        ((4, 8, 8, 3), (2, 3, 2, 2), r"add a batch axis to both: clip\[None\], maps\[None\]"),
        ((4, 8, 8, 3), (4, 2, 3, 2, 2), r"no titles\.$"),
    ],
)
def test_one_without_a_batch_axis(
    image: tuple[int, ...], maps: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tk.plot_attention_maps(np.zeros(image), np.zeros(maps))


def test_the_maps_of_one_token_learner_by_name() -> None:
    pytest.importorskip("matplotlib")
    images, maps = np.zeros((1, 8, 8, 3)), np.ones((1, 3, 2, 2), "float32")
    figure = tk.plot_attention_maps(images, {"token_learner_0": maps})
    assert len(figure.axes) == 4
    for names in (("first", "second"), ()):
        listed = "'first', 'second'" if names else "none"
        with pytest.raises(ValueError, match=f"those of {listed}. Pass one of them"):
            tk.plot_attention_maps(images, dict.fromkeys(names, maps))


@pytest.mark.parametrize(
    ("num_frames", "steps", "shown"),
    [(4, 4, [1, 2, 3, 4]), (8, 4, [2, 4, 6, 8]), (9, 3, [2, 5, 8]), (7, 3, [2, 4, 6]), (5, 1, [3])],
)
def test_a_video_becomes_a_strip(
    num_frames: int, steps: int, shown: list[int], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    videos = np.zeros((2, num_frames, 16, 24, 3), "float32")
    videos += np.arange(num_frames).reshape(1, -1, 1, 1, 1) / num_frames
    maps = np.zeros((2, steps, 3, 4, 6), "float32")
    maps[:, 0, 1, :2] = 1
    path = tmp_path / "maps.png"
    figure = tk.plot_attention_maps(videos, maps, path, titles=["one", "t$wo"])
    assert len(figure.axes) == 2 * 4 * steps
    assert np.asarray(Image.open(path)).std() > 0
    first = figure.axes[: 4 * steps]
    assert [axis.get_title() for axis in first[:steps]] == [f"frame {n}" for n in shown]
    labels = [axis.get_ylabel() for axis in first[::steps]]
    assert labels == ["video", "token 1", "token 2", "token 3"]
    for axis, number in zip(first, shown, strict=False):
        assert np.allclose(axis.images[0].get_array(), (number - 1) / num_frames)
    # Colour where the one map has weight: its first step, its second token, its upper half.
    colour = [np.ptp(axis.images[0].get_array(), axis=-1).max(axis=1) for axis in first]
    assert colour[2 * steps][:4].min() > 0.2 and np.all(colour[2 * steps][12:] == 0)
    assert all(np.all(c == 0) for n, c in enumerate(colour) if n != 2 * steps)


def test_a_token_of_a_whole_clip_has_a_row_of_frames(tmp_path: Path) -> None:
    """On one scale: where its map has nothing in a frame, the frame is grey."""
    pytest.importorskip("matplotlib")
    videos = np.full((2, 4, 16, 24, 3), 0.5, "float32")
    maps = np.zeros((2, 3, 2, 4, 6), "float32")  # three tokens, two steps
    maps[:, 1, 0, :2] = 1
    figure = tk.plot_attention_maps(videos, maps, tmp_path / "maps.png", per_frame=False)
    assert len(figure.axes) == 2 * 4 * 2
    first = figure.axes[: 4 * 2]
    labels = [axis.get_ylabel() for axis in first[::2]]
    assert labels == ["video", "token 1", "token 2", "token 3"]
    assert [axis.get_title() for axis in first[:2]] == ["frame 2", "frame 4"]
    colour = [np.ptp(axis.images[0].get_array(), axis=-1).max() for axis in first]
    assert [number for number, each in enumerate(colour) if each > 0] == [4]
    # Of images there is no time to be told apart.
    image = tk.plot_attention_maps(videos[:, 0], maps[:, :, 0], per_frame=False)
    assert len(image.axes) == 2 * 4
    with pytest.raises(ValueError, match="with per_frame=False, the tokens before the steps"):
        tk.plot_attention_maps(videos, np.ones((2, 3, 5, 4, 6)), per_frame=False)

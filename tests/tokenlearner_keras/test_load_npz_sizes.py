"""Public ViT checkpoints in models for other images, and for videos."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers.arrays import random
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.goldens import golden_model
from tests.helpers.vit_checkpoints import KERNEL
from tests.helpers.vit_checkpoints import POSITIONS
from tests.helpers.vit_checkpoints import checkpoint_arrays
from tests.helpers.vit_checkpoints import parameter_value
from tests.helpers.vit_checkpoints import save_checkpoint
from tokenlearner_keras.weights.augreg import load_npz
from tokenlearner_keras.weights.reference import reference_parameters
from tokenlearner_keras.weights.resize import resize_positions

VIDEO = {"num_frames": 6, "classifier": "gap"}


@pytest.mark.parametrize("classifier", ["gap", "token"])
@pytest.mark.parametrize("image_size", [(48, 48), (16, 24), (24, 40), (16, 64)])
def test_positions_are_resized(image_size: tuple[int, int], classifier: str) -> None:
    """Also to a grid of another shape with the same number of positions, 2 x 8."""
    model = golden_model(image_size=image_size, classifier=classifier)
    report = load_npz(model, CHECKPOINT, grid_size=(4, 4))
    assert report.resized == (POSITIONS,)
    assert POSITIONS not in report.loaded
    table = checkpoint_arrays()[POSITIONS][0]
    grid = (image_size[0] // 8, image_size[1] // 8)
    expected = resize_positions(table[1:], (4, 4), grid)
    loaded = parameter_value(model, POSITIONS)[0]
    if classifier == "token":
        np.testing.assert_array_equal(loaded[0], table[0])
        loaded = loaded[1:]
    np.testing.assert_array_equal(loaded, expected)


@pytest.mark.parametrize("classifier", ["gap", "token"])
def test_a_table_of_the_same_grid_that_is_no_square(classifier: str, tmp_path: Path) -> None:
    arrays = checkpoint_arrays()
    length = 6 if classifier == "gap" else 7
    arrays[POSITIONS] = random(1, length, 24)
    if classifier == "gap":
        del arrays["cls"]
    model = golden_model(image_size=(16, 24), classifier=classifier)
    load_npz(model, save_checkpoint(tmp_path, arrays), strict=True)
    np.testing.assert_array_equal(parameter_value(model, POSITIONS), arrays[POSITIONS])
    other = golden_model(image_size=(24, 24), classifier=classifier)
    with pytest.raises(ValueError, match=r"grid \(3, 3\) or a square number"):
        load_npz(other, tmp_path / "checkpoint.npz")


@pytest.mark.parametrize("grid", [(2, 4), (3, 5), (5, 3), (2, 8), (4, 4)])
def test_a_table_of_the_models_shape_is_taken_as_it_is(
    grid: tuple[int, int], tmp_path: Path
) -> None:
    """Also where it and its class token's row are a square number, and 3 x 3 another model."""
    arrays = checkpoint_arrays()
    arrays[POSITIONS] = random(1, math.prod(grid) + 1, 24)
    path = save_checkpoint(tmp_path, arrays)
    size = (8 * grid[0], 8 * grid[1])
    model = golden_model(image_size=size, classifier="token")
    assert load_npz(model, path, strict=True).is_exact
    np.testing.assert_array_equal(parameter_value(model, POSITIONS), arrays[POSITIONS])
    # The same file for other sizes, and for a model without a class token.
    for classifier in ("token", "gap"):
        other = golden_model(image_size=(24, 24), classifier=classifier)
        load_npz(other, path, grid_size=grid)
        rows = resize_positions(arrays[POSITIONS][0, 1:], grid, (3, 3))
        np.testing.assert_array_equal(parameter_value(other, POSITIONS)[0][-9:], rows)
    with pytest.raises(ValueError, match=r"those of grid_size=\(7, 9\)"):
        load_npz(model, path, grid_size=(7, 9))


def test_names_tell_whether_the_class_token_has_a_row(tmp_path: Path) -> None:
    """9 positions of big_vision, added before the class token, are not 2 x 4 and a row."""
    arrays = checkpoint_arrays()
    del arrays[POSITIONS]
    arrays["pos_embedding"] = random(1, 9, 24)
    model = golden_model(image_size=(16, 32), classifier="token")
    load_npz(model, save_checkpoint(tmp_path, arrays))
    table = parameter_value(model, POSITIONS)[0]
    assert not np.any(table[0])
    rows = resize_positions(arrays["pos_embedding"][0], (3, 3), (2, 4))
    np.testing.assert_array_equal(table[1:], rows)


@pytest.mark.parametrize("inflation", ["central_frame", "average"])
def test_a_still_video_is_embedded_as_its_image(inflation: str) -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype("float32")
    model = golden_model()
    load_npz(model, CHECKPOINT)
    expected = keras.ops.convert_to_numpy(model.get_layer("embedding")(image))
    video_model = golden_model(**VIDEO, tubelet_size=3)
    report = load_npz(video_model, CHECKPOINT, inflation=inflation)
    assert report.resized == (POSITIONS, KERNEL)
    video = np.repeat(image[:, None], 6, axis=1)
    embedded = keras.ops.convert_to_numpy(video_model.get_layer("embedding")(video))
    for frame in embedded[0]:
        np.testing.assert_allclose(frame, expected[0], atol=1e-5 * np.abs(expected).max())
    shares = np.abs(parameter_value(video_model, KERNEL)).sum((1, 2, 3, 4))
    share = [0, 1, 0] if inflation == "central_frame" else [1 / 3] * 3
    np.testing.assert_allclose(shares / shares.sum(), share, atol=1e-5)


def test_the_model_says_how_its_tubelets_are_filled() -> None:
    model = golden_model(**VIDEO, tubelet_size=3, tubelet_inflation="average")
    load_npz(model, CHECKPOINT)
    kernel = parameter_value(model, KERNEL)
    np.testing.assert_allclose(kernel, np.stack([checkpoint_arrays()[KERNEL] / 3] * 3), atol=1e-7)
    load_npz(model, CHECKPOINT, inflation="central_frame")
    assert not np.any(parameter_value(model, KERNEL)[[0, 2]])


@pytest.mark.parametrize("tubelet_size", [1, 2])
@pytest.mark.parametrize("image_size", [(32, 32), (24, 40)])
def test_positions_are_repeated_for_every_frame(
    tubelet_size: int, image_size: tuple[int, int]
) -> None:
    model = golden_model(**VIDEO, tubelet_size=tubelet_size, image_size=image_size)
    report = load_npz(model, CHECKPOINT)
    assert POSITIONS in report.resized
    assert (KERNEL in report.resized) == (tubelet_size > 1)
    grid = (image_size[0] // 8, image_size[1] // 8)
    frame = resize_positions(checkpoint_arrays()[POSITIONS][0, 1:], (4, 4), grid)
    table = parameter_value(model, POSITIONS).reshape(6 // tubelet_size, *frame.shape)
    for each in table:
        np.testing.assert_array_equal(each, frame)


def test_the_kernel_tells_a_frames_table_from_a_videos(tmp_path: Path) -> None:
    """4 x 4 positions of an image are not the 4 x 2 x 2 of a video."""
    model = golden_model(num_frames=8, tubelet_size=2, image_size=(16, 16))
    load_npz(model, CHECKPOINT)
    frame = resize_positions(checkpoint_arrays()[POSITIONS][0, 1:], (4, 4), (2, 2))
    np.testing.assert_array_equal(parameter_value(model, POSITIONS)[0], np.tile(frame, (4, 1)))
    video = {name: parameter_value(model, name) for name in reference_parameters(model)}
    shorter = golden_model(num_frames=4, tubelet_size=2, image_size=(16, 16))
    with pytest.raises(ValueError, match=r"the 8 positions of the grid \(2, 2, 2\).*received 16"):
        load_npz(shorter, save_checkpoint(tmp_path, video))

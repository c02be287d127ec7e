"""Clips and views against plain numpy, frame by frame."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.helpers.fake_source import photograph
from tests.helpers.fake_videos import encoded
from tests.helpers.fake_videos import frame_numbers
from tests.helpers.fake_videos import numbered_video
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing import videos as video_preprocessing
from trainers.data.preprocessing.videos import evaluation_clip
from trainers.data.preprocessing.videos import evaluation_views
from trainers.data.preprocessing.videos import train_clip

Example = dict[str, tf.Tensor]


def _raw(video: npt.NDArray[np.uint8]) -> Example:
    return {"video": tf.constant(video)}


def _config(
    image_size: tuple[int, int] = (16, 16), num_frames: int = 4, **settings: Any
) -> VideoPreprocessingConfig:
    """Return settings that change nothing but what they name."""
    plain = {"stride": 1, "min_resize": 24, "scale_jitter": None, "flip": False}
    return VideoPreprocessingConfig(image_size, num_frames, **{**plain, **settings})


def _trainer(example: Example, config: VideoPreprocessingConfig) -> Callable[[int], Any]:
    function = tf.function(lambda seed: train_clip(example, seed, config))
    return lambda seed: function(tf.constant([7, seed], tf.int64)).numpy()


def _training_clips(
    example: Example, config: VideoPreprocessingConfig, parallel_calls: int | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Return the clips of the seeds (7, 0) to (7, 7), through a dataset."""

    def clip(seed: tf.Tensor) -> tf.Tensor:
        return train_clip(example, tf.stack([tf.constant(7, tf.int64), seed]), config)

    dataset = tf.data.Dataset.range(8).map(clip, num_parallel_calls=parallel_calls)
    assert dataset.element_spec.shape == (config.num_frames, *config.image_size, 3)
    clips: Iterator[npt.NDArray[np.uint8]] = dataset.as_numpy_iterator()
    return clips


def _bilinear(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.float64]:
    """Resize by looking at the two nearest pixels of each axis, without antialiasing."""

    def axis(values: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
        length = len(values)
        places = (np.arange(size) + 0.5) * length / size - 0.5
        low = np.floor(places).astype(int)
        share = (places - low)[:, None, None]
        below, above = np.clip([low, low + 1], 0, length - 1)
        mixed: npt.NDArray[np.float64] = (1 - share) * values[below] + share * values[above]
        return mixed

    rows = axis(image.astype(np.float64), height)
    return axis(rows.swapaxes(0, 1), width).swapaxes(0, 1)


def test_training_clips_are_windows_of_consecutive_frames() -> None:
    video = numbered_video(9, 24, 30)
    train = _trainer(_raw(video), _config(stride=2, flip=True))
    possible = {}
    for top in range(9):
        for left in range(15):
            window = video[0, top : top + 16, left : left + 16, :2]
            possible[window.tobytes()] = (top, left, False)
            possible[window[:, ::-1].tobytes()] = (top, left, True)
    seen = []
    for seed in range(300):
        clip = train(seed)
        assert clip.shape == (4, 16, 16, 3) and clip.dtype == np.uint8
        # The same window of all frames, mirrored in all or in none.
        assert (clip[..., :2] == clip[:1, ..., :2]).all()
        numbers = frame_numbers(clip)
        assert numbers == list(range(numbers[0], numbers[0] + 8, 2))
        seen.append((numbers[0], *possible[clip[0, ..., :2].tobytes()]))
    starts, tops, lefts, flips = zip(*seen, strict=True)
    assert set(starts) == set(range(3))
    assert set(tops) == set(range(9)) and set(lefts) == set(range(15))
    assert 100 < sum(flips) < 200


@pytest.mark.slow
def test_same_seed_same_bytes_and_seeds_differ() -> None:
    config = _config(
        scale_jitter=(0.9, 1.33),
        flip=True,
        color_jitter=0.8,
        color_drop=0.2,
        randaugment_layers=2,
        random_erasing=0.5,
        frame_order="shuffled",
    )
    video = numbered_video(12, 30, 40)
    clips = list(_training_clips(_raw(video), config, None))
    assert {clip.shape for clip in clips} == {(4, 16, 16, 3)}
    assert len({clip.tobytes() for clip in clips}) == 8
    # Calls in parallel change nothing, nor do encoded frames.
    for clip, expected in zip(_training_clips(encoded(video), config, 4), clips, strict=True):
        np.testing.assert_array_equal(clip, expected)


@pytest.mark.parametrize(("height", "width"), [(20, 29), (29, 20), (48, 70), (24, 24)])
def test_evaluation_shows_the_centre_of_the_resized_middle(height: int, width: int) -> None:
    video = numbered_video(7, height, width)
    clip = evaluation_clip(_raw(video), _config((16, 20))).numpy()
    shorter = min(height, width)
    new_height, new_width = height * 24 // shorter, width * 24 // shorter
    top, left = -((16 - new_height) // 2), -((20 - new_width) // 2)  # rounded up
    for frame, number in zip(clip, range(1, 5), strict=True):
        resized = _bilinear(video[number], new_height, new_width)
        window = resized[top : top + 16, left : left + 20]
        np.testing.assert_allclose(frame, window, atol=0.51)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((10, 10), (40, 40)),
        ((50, 20), (75, 30)),
        ((24, 60), (40, 100)),
        ((40, 30), (40, 30)),
        ((35, 33), (40, 37)),
    ],
)
def test_a_window_that_does_not_fit_enlarges_the_frames(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    video = numbered_video(4, *size)
    clip = evaluation_clip(_raw(video), _config((40, 30), min_resize=20)).numpy()
    top, left = (expected[0] - 40 + 1) // 2, (expected[1] - 30 + 1) // 2
    window = _bilinear(video[2], *expected)[top : top + 40, left : left + 30]
    np.testing.assert_allclose(clip[2], window, atol=0.51)


def test_scale_jitter_has_a_factor_for_each_side() -> None:
    # A ramp over each axis: its slope tells how much the axis was stretched.
    video = np.zeros((1, 100, 100, 3), np.uint8)
    video[..., 0] = np.arange(100)[:, None] * 2
    video[..., 1] = np.arange(100)[None, :] * 2
    config = _config((60, 60), 1, min_resize=100, scale_jitter=(0.8, 1.6))
    train = _trainer(_raw(video), config)
    factors = []
    for seed in range(150):
        inner = train(seed)[0, 5:-5, 5:-5].astype(float)
        slopes = inner[-1, 0, 0] - inner[0, 0, 0], inner[0, -1, 1] - inner[0, 0, 1]
        factors.append([2 * 49 / slope for slope in slopes])
    scales = np.array(factors)
    assert 0.78 < scales.min() < 0.84 and 1.5 < scales.max() < 1.65
    np.testing.assert_allclose(scales.mean(axis=0), 1.2, atol=0.06)  # uniform
    assert abs(np.corrcoef(scales.T)[0, 1]) < 0.25  # independent


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_interpolation(interpolation: str) -> None:
    video = np.stack([photograph(20, 30)])
    config = _config((24, 36), 1, interpolation=interpolation)
    clip = evaluation_clip(_raw(video), config).numpy()
    resized = tf.image.resize(video[0], (24, 36), interpolation).numpy()
    np.testing.assert_allclose(clip[0], np.clip(resized, 0, 255), atol=0.51)


def test_short_videos_are_repeated() -> None:
    config = _config(num_frames=8)
    one, three = _raw(numbered_video(1)), _raw(numbered_video(3))
    assert frame_numbers(_trainer(one, config)(0)) == [0] * 8
    assert frame_numbers(_trainer(three, config)(0)) == [0, 1, 2] * 2 + [0, 1]
    assert frame_numbers(evaluation_clip(three, config).numpy()) == [0, 1, 2] * 2 + [0, 1]
    views = evaluation_views(three, config).numpy()
    assert frame_numbers(views) == [[0, 1, 2] * 2 + [0, 1]] * 12


@pytest.mark.parametrize(
    ("height", "width", "begins"),
    [
        (16, 31, [(0, 0), (0, 8), (0, 15)]),
        (31, 16, [(0, 0), (8, 0), (15, 0)]),
        (19, 25, [(2, 0), (2, 5), (2, 9)]),
        (21, 21, [(3, 0), (3, 3), (3, 5)]),
    ],
)
def test_views_are_windows_then_clips(
    height: int, width: int, begins: list[tuple[int, int]]
) -> None:
    video = numbered_video(20, height, width)
    config = _config(min_resize=min(height, width), stride=2)
    views = evaluation_views(_raw(video), config).numpy()
    assert views.shape == (12, 4, 16, 16, 3) and views.dtype == np.uint8
    expected = [
        video[start : start + 8 : 2, top : top + 16, left : left + 16]
        for top, left in begins
        for start in (0, 4, 8, 12)
    ]
    np.testing.assert_array_equal(views, expected)


def test_windows_move_along_the_side_with_more_to_spare() -> None:
    # Taller than wide, but the window fills the height.
    video = numbered_video(4, 32, 28)
    views = evaluation_views(_raw(video), _config((32, 16), min_resize=28, temporal_views=1))
    expected = [video[:, :, left : left + 16] for left in (0, 6, 12)]
    np.testing.assert_array_equal(views, expected)


def test_one_view_is_the_evaluation_clip() -> None:
    video = _raw(numbered_video(20, 30, 41))
    config = _config(temporal_views=1, spatial_views=1)
    views = evaluation_views(video, config)
    np.testing.assert_array_equal(views, evaluation_clip(video, config)[tf.newaxis])


def test_each_frame_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[list[int]] = []

    def decode(example: Example, indices: tf.Tensor, *how: Any) -> tf.Tensor:
        decoded.append(indices.numpy().tolist())
        return original(example, indices, *how)

    original = video_preprocessing.decode_frames
    monkeypatch.setattr(video_preprocessing, "decode_frames", decode)
    video = encoded(numbered_video(6))
    evaluation_views(video, _config(num_frames=4, temporal_views=3))
    evaluation_clip(video, _config(frame_order="repeated"))
    train_clip(video, tf.constant([0, 0]), _config(num_frames=20))
    assert [sorted(indices) for indices in decoded] == [[0, 1, 2, 3, 4, 5], [3], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("make", [_raw, encoded])
def test_evaluation_from_a_dataset_has_a_fixed_shape(make: Callable[[Any], Example]) -> None:
    videos = [numbered_video(length, 20, 28) for length in (1, 5, 30)]
    examples = [make(video) for video in videos]
    (name,) = {"video", "frames"} & set(examples[0])
    shape = (None, None, None, 3) if name == "video" else (None,)
    signature = {name: tf.TensorSpec(shape, examples[0][name].dtype)}
    dataset = tf.data.Dataset.from_generator(
        lambda: ({name: example[name]} for example in examples), output_signature=signature
    )
    config = _config(frame_order="shuffled")
    clips = dataset.map(lambda example: evaluation_clip(example, config))
    views = dataset.map(lambda example: evaluation_views(example, config))
    assert clips.element_spec.shape == (4, 16, 16, 3)
    assert views.element_spec.shape == (12, 4, 16, 16, 3)
    for video, clip, view in zip(videos, clips, views, strict=True):
        np.testing.assert_array_equal(clip, evaluation_clip(make(video), config))
        np.testing.assert_array_equal(view, evaluation_views(make(video), config))


def test_repeated_order_shows_the_middle_frame() -> None:
    video = _raw(numbered_video(20))
    config = _config(frame_order="repeated", temporal_views=2)
    assert frame_numbers(evaluation_clip(video, config).numpy()) == [10] * 4
    assert frame_numbers(evaluation_views(video, config).numpy()) == [[2] * 4, [18] * 4] * 3
    train = _trainer(video, config)
    numbers = {tuple(frame_numbers(train(seed))) for seed in range(40)}
    assert numbers <= {(number,) * 4 for number in range(2, 19)} and len(numbers) > 5


@pytest.mark.parametrize("make", [_raw, encoded])
def test_shuffled_order_is_drawn_from_the_content(make: Callable[[Any], Example]) -> None:
    config = _config(num_frames=12, frame_order="shuffled", spatial_views=1)
    orders = []
    for brightness in range(6):
        video = numbered_video(12)
        video[..., 0] += np.uint8(brightness)
        order = frame_numbers(evaluation_clip(make(video), config).numpy())
        assert sorted(order) == list(range(12))
        assert frame_numbers(evaluation_clip(make(video), config).numpy()) == order
        orders.append(tuple(order))
    assert len(set(orders)) == 6
    views = frame_numbers(evaluation_views(make(numbered_video(12)), config).numpy())
    assert len({tuple(view) for view in views}) == 4


def test_shuffled_order_by_a_seed() -> None:
    config = _config(num_frames=12, frame_order="shuffled")
    train = _trainer(_raw(numbered_video(12)), config)
    assert frame_numbers(train(0)) == frame_numbers(train(0)) != frame_numbers(train(1))


def test_augmentation_treats_all_frames_alike() -> None:
    # A still video: whatever is drawn, its frames stay equal.
    video = np.stack([photograph(24, 32)] * 5)
    config = _config(
        scale_jitter=(0.9, 1.33),
        flip=True,
        color_jitter=1.0,
        color_drop=0.3,
        randaugment_layers=2,
        random_erasing=0.25,
    )
    train = _trainer(_raw(video), config)
    clips = [train(seed) for seed in range(30)]
    for clip in clips:
        np.testing.assert_array_equal(clip, np.broadcast_to(clip[:1], clip.shape))
    grey = [(clip[..., 0] == clip[..., 1]).all() for clip in clips]
    assert any(grey) and not all(grey)

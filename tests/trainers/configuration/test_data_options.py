import pytest

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.utils.errors import ConfigurationError


def test_lists_of_a_configuration_file_are_accepted() -> None:
    config = VideoPreprocessingConfig([8, 8], 4, scale_jitter=[1.0, 2.0])  # type: ignore[arg-type]
    assert config == VideoPreprocessingConfig((8, 8), 4, scale_jitter=(1.0, 2.0))


def test_number_of_views() -> None:
    assert VideoPreprocessingConfig((8, 8), 4).num_views == 12
    assert VideoPreprocessingConfig((8, 8), 4, temporal_views=2, spatial_views=1).num_views == 2


def test_scale_jitter_can_be_off() -> None:
    assert VideoPreprocessingConfig((8, 8), 4, scale_jitter=None).scale_jitter is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 224},
        {"image_size": (2, 8)},
        {"num_frames": 0},
        {"num_frames": 1.5},
        {"stride": 0},
        {"min_resize": 0},
        {"scale_jitter": 0.5},
        {"scale_jitter": (0.0, 1.0)},
        {"scale_jitter": (1.3, 0.9)},
        {"color_jitter": 1.5},
        {"color_drop": -0.1},
        {"random_erasing": 1.1},
        {"randaugment_layers": -1},
        {"randaugment_magnitude": 40},
        {"interpolation": "lanczos"},
        {"temporal_views": 0},
        {"spatial_views": 2},
        {"view_reduction": "mean"},
        {"frame_order": "reversed"},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    (name,) = wrong
    arguments = {"image_size": (8, 8), "num_frames": 4, **wrong}
    with pytest.raises(ConfigurationError, match=rf"^video\.{name} must be .* Received: "):
        VideoPreprocessingConfig(**arguments)  # type: ignore[arg-type]

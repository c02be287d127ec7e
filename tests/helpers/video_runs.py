"""A small experiment on videos, as `small_runs` has one on images."""

from pathlib import Path

from tests.helpers.video_record_sets import write_small_set

TRANSFORMER = {
    "name": "vivit_ti8x2_d2_tl2at1",
    "image_size": 16,
    "num_frames": 4,
    "width": 16,
    "num_heads": 2,
    "mlp_dim": 32,
}
CONVOLUTIONS = {
    "name": "x2plus1d_m_tokenlearner",
    "image_size": 32,
    "num_frames": 4,
    "stem_width": 4,
    "widths": (4, 8),
    "inner_widths": (8, 16),
    "depths": (1, 2),
    "module_blocks": 1,
    "num_tokens": 2,
    "num_heads": 2,
    "key_width": 8,
    "representation_size": 8,
}

VIDEO_CONFIG = """
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.batch_size = 4
    config.total_steps = 4
    config.log_steps = 1
    config.loss = {loss!r}
    config.model = {model!r}
    config.data = {{
        "source": "records",
        "data_dir": {data_dir!r},
        "final_split": "test",
        "multi_label": {multi_label!r},
        "normalization": "clip",
    }}
    config.video = {{"min_resize": 16, "temporal_views": 2, "color_jitter": 0.5}}
    config.optimizer = {{"learning_rate": 0.01, "schedule": "constant"}}
    return config
"""


def video_config(folder: Path, model: dict[str, object], multi_label: bool) -> str:
    """Writes the records of a small set and returns the text of a configuration that reads them.

    Args:
        folder: Takes the records.
        model: Section `model` of the configuration.
        multi_label: Whether a video has any number of labels.
    """
    return VIDEO_CONFIG.format(
        model=model,
        data_dir=str(write_small_set(folder / "records", multi_label=multi_label)),
        multi_label=multi_label,
        loss="sigmoid" if multi_label else "softmax",
    )

"""Training and evaluating on videos: clips, views, several labels."""

from pathlib import Path

import numpy as np
import pytest

from tests.trainers.data.video_record_sets import write_small_set
from tests.trainers.small_runs import Trainer
from tests.trainers.small_runs import assert_same_arrays
from tests.trainers.small_runs import checkpoint_arrays
from tests.trainers.small_runs import rows
from trainers.errors import ConfigurationError

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


def _trainer(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: dict[str, object], multi_label: bool
) -> Trainer:
    data_dir = write_small_set(folder / "records", multi_label=multi_label)
    text = VIDEO_CONFIG.format(
        model=model,
        data_dir=str(data_dir),
        multi_label=multi_label,
        loss="sigmoid" if multi_label else "softmax",
    )
    return Trainer(monkeypatch, folder, text)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("model", [TRANSFORMER, CONVOLUTIONS], ids=["transformer", "convolutions"])
def test_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: dict[str, object], multi_label: bool
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, model, multi_label)
    workdir = trainer("run")
    metric = "mean_average_precision" if multi_label else "accuracy"
    for split, count in (("validation", 5), ("test", 4)):
        (row,) = rows(workdir, split)
        assert row["num_examples"] == count
        assert 0 <= row[metric] <= 1 and np.isfinite(row["loss"])
    trainer("stopped", "--config.total_steps=2")
    stopped = trainer("stopped", "--config.total_steps=4")
    assert_same_arrays(checkpoint_arrays(workdir, 4), checkpoint_arrays(stopped, 4))


def test_images_are_no_videos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer = _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label=False)
    with pytest.raises(ConfigurationError, match="takes videos, and digits holds images"):
        trainer("run", "--config.data.source=digits")


def test_several_labels_need_the_sigmoid_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = _trainer(monkeypatch, tmp_path, TRANSFORMER, multi_label=True)
    with pytest.raises(ConfigurationError, match="loss='sigmoid'"):
        trainer("run", "--config.loss=softmax")

"""Pictures of attention, of models whose tokens belong to frames or to whole clips."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.small_models import small_model
from trainers.inference import overlays
from trainers.inference.overlays import AttentionOverlays
from trainers.utils.errors import ConfigurationError

pytest.importorskip("matplotlib")


def _predictor(model: keras.Model) -> Any:
    """Stands for a trained model: the part that overlays use."""
    return SimpleNamespace(
        trained=SimpleNamespace(model=model, input_shape=model.input_shape[1:]),
        attention_maps=lambda images: tk.attention_maps(model, images.astype("float32") / 255),
    )


@pytest.mark.parametrize("name", ["vivit_ti16x2_d1_tl3at0", "vivit_ti16x2_d1_tl3at0_st_pm"])
def test_tokens_of_clips_have_a_row_each(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures, plot = [], tk.plot_attention_maps

    def kept(*args: Any, **kwargs: Any) -> Any:
        figures.append(plot(*args, **kwargs))
        return figures[-1]

    monkeypatch.setattr(overlays.tk, "plot_attention_maps", kept)
    clip = np.random.default_rng(0).integers(0, 255, (4, 32, 48, 3), np.uint8)
    read = SimpleNamespace(picture=clip, number=1, path="videos/a.mp4")
    AttentionOverlays(str(tmp_path / "maps"), _predictor(small_model(name))).draw([read], ["title"])
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["00001_videos_a.png"]
    (figure,) = figures
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert len(labels) == 2 * 4  # of two steps the clip and three tokens
    assert labels[::2] == ["video", "token 1", "token 2", "token 3"]


def test_merged_tokens_have_no_maps(tmp_path: Path) -> None:
    model = small_model("vit_ti8_d2_tl12at1_merge")
    with pytest.raises(ConfigurationError, match="has no TokenLearner layer"):
        AttentionOverlays(str(tmp_path / "maps"), _predictor(model))

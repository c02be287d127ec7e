"""The video demo's report, after a training of two steps on the clips of the fixture."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.helpers.small_runs import Trainer
from trainers import demo_video
from trainers.data import sources
from trainers.data.freedoom.dataset import Arrays
from trainers.data.freedoom.options import MotionOptions
from trainers.utils.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "motion_small.npz"
SHORT = ("batch_size=18", "total_steps=2", "video.stride=1", "model.width=24")


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        clips = dict(arrays)

    def load(split: str, options: MotionOptions) -> Arrays:
        if not options.multi_label:
            return clips
        return {**clips, "labels": np.eye(9, dtype=np.float32)[clips["labels"]][:, 1:]}

    monkeypatch.setattr(sources, "load_rendered", load)
    return Trainer(monkeypatch, tmp_path)


def _run(trainer: Trainer, config: str, *overrides: str) -> Path:
    trainer.config = str(ROOT / "trainers" / "configs" / f"{config}.py")
    return trainer("run", *(f"--config.{each}" for each in (*SHORT, *overrides)))


@pytest.mark.parametrize(
    ("config", "metric"),
    [
        pytest.param("demo_video", "accuracy", marks=pytest.mark.slow),
        pytest.param("demo_video_multilabel", "mean average precision", marks=pytest.mark.extra),
    ],
)
def test_the_report(
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    config: str,
    metric: str,
) -> None:
    workdir = _run(trainer, config)
    monkeypatch.setattr(demo_video, "FLAGS", SimpleNamespace(workdir=str(workdir)))
    capsys.readouterr()
    demo_video.main()
    lines = capsys.readouterr().out.splitlines()
    (headline,) = (line for line in lines if line.startswith(f"test {metric} 0."))
    assert "on 36 rendered clips" in headline
    for order in ("repeated", "in another order"):
        (line,) = (line for line in lines if order in line)
        assert f": {metric} 0." in line
    with Image.open(workdir / "attention_maps.png") as picture:
        # Of nine classes four clips are shown, of several labels too.
        assert picture.width > picture.height


@pytest.mark.slow
def test_a_model_without_tokens(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = _run(trainer, "demo_video", "model.name=vivit_ti8x4_d1")
    monkeypatch.setattr(demo_video, "FLAGS", SimpleNamespace(workdir=str(workdir)))
    demo_video.main()
    assert "no TokenLearner in this model" in capsys.readouterr().out
    assert not (workdir / "attention_maps.png").exists()


def test_other_data_are_refused(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_video, "FLAGS", SimpleNamespace(workdir=str(workdir)))
    with pytest.raises(ConfigurationError, match="freedoom_motion.*'digits'.*trainers.evaluate"):
        demo_video.main()

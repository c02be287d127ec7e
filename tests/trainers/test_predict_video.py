"""The command that predicts files, on videos: clips, views, several labels."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tokenlearner_keras as tk
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import rows
from tests.helpers.small_runs import run_command
from tests.helpers.video_runs import TRANSFORMER
from tests.helpers.video_runs import video_config
from trainers import predict
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.normalization import normalize
from trainers.data.preprocessing.videos import evaluation_clip
from trainers.data.preprocessing.videos import evaluation_views
from trainers.data.video_files import read_frames
from trainers.utils.errors import DataError

pytest.importorskip("av")

from tests.helpers.tiny_videos import write_video  # noqa: E402

Predict = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Runs the command; returns what it prints."""

    def run(*arguments: str) -> str:
        capsys.readouterr()  # what a training printed before
        run_command(monkeypatch, predict, *arguments)
        return capsys.readouterr().out

    return run


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.mp4", "below/b.avi", "below/c.mp4")):
        write_video(tmp_path / "videos" / name, 4 + 8 * number, level=20 * number)
    return tmp_path / "videos"


def _logits(
    model: keras.Model, path: Path, config: VideoPreprocessingConfig, views: bool
) -> np.ndarray:
    example = {"video": tf.constant(np.stack(list(read_frames(str(path)))))}
    if not views:
        clips = evaluation_clip(example, config)[None]
    else:
        clips = evaluation_views(example, config)
    return np.asarray(model(normalize(clips.numpy(), "clip"), training=False)).mean(axis=0)


@pytest.mark.slow
def test_all_views_of_videos(
    command: Predict, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    model = tk.create_model(**TRANSFORMER, num_classes=3)
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:  # a fresh head answers 0 to everything
        variable.assign_add(0.2 * generator.normal(size=variable.shape))
    model.save(tmp_path / "model.keras")
    # Frames are resized to 16 / 0.875 pixels.
    config = VideoPreprocessingConfig((16, 16), 4, stride=1, min_resize=18)
    settings = ["--stride=1", "--normalization=clip", "--batch_size=30", "--format=json"]
    fixed = [f"--model={tmp_path / 'model.keras'}", f"--inputs={videos}", *settings]
    pictures = tmp_path / "pictures"
    for views, flag in ((True, f"--overlay_dir={pictures}"), (False, "--noviews")):
        found = json.loads(command(*fixed, flag))
        assert [each["path"] for each in found] == [
            str(videos / name) for name in ("a.mp4", "below/b.avi", "below/c.mp4")
        ]
        for each in found:
            logits = _logits(model, Path(each["path"]), config, views)
            expected = np.asarray(keras.ops.softmax(logits))
            by_class = {int(row["class"]): row["probability"] for row in each["predictions"]}
            assert by_class == pytest.approx(dict(enumerate(expected)), rel=1e-3)
    assert sorted(path.name for path in pictures.iterdir()) == [
        "00001_videos_a.png",
        "00002_below_b.png",
        "00003_below_c.png",
    ]
    (videos / "below" / "c.mp4").write_bytes(b"no video")
    (videos.parent / "image.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 4 inputs"):
        command(*fixed, f"--inputs={videos.parent / 'image.png'}")
    said = capsys.readouterr().err
    assert "c.mp4: Invalid data" in said and "an image, and the model takes videos" in said


@pytest.mark.slow
def test_it_is_as_right_as_the_training_says(
    monkeypatch: pytest.MonkeyPatch, command: Predict, tmp_path: Path
) -> None:
    for split, count in (("train", 6), ("val", 4), ("test", 4)):
        for name, level in (("dark", 0), ("light", 160)):
            for number in range(count):
                path = tmp_path / "videos" / split / name / f"{number}.mp4"
                write_video(path, 4 + number, level=level)
    trainer = Trainer(monkeypatch, tmp_path, video_config(tmp_path, TRANSFORMER, False))
    data = ["--config.data.source=video_folder", f"--config.data.data_dir={tmp_path / 'videos'}"]
    # By the share of light, not by the statistics of each clip.
    workdir = trainer("run", *data, "--config.data.normalization=unit")
    for split, folder, views in (("test", "test", []), ("validation", "val", ["--noviews"])):
        inputs = f"--inputs={tmp_path / 'videos' / folder}"
        text = command(f"--workdir={workdir}", inputs, "--top_k=1", *views)
        found = list(csv.DictReader(io.StringIO(text)))
        right = [row["class"] == Path(row["path"]).parent.name for row in found]
        (judged,) = rows(workdir, split)
        assert len(right) == judged["num_examples"] == 8
        assert np.mean(right) == pytest.approx(judged["accuracy"], abs=1e-6)


@pytest.mark.slow
def test_several_labels(
    monkeypatch: pytest.MonkeyPatch, command: Predict, videos: Path, tmp_path: Path
) -> None:
    workdir = Trainer(monkeypatch, tmp_path, video_config(tmp_path, TRANSFORMER, True))("run")
    found = json.loads(command(f"--workdir={workdir}", f"--inputs={videos}", "--format=json"))
    model = keras.saving.load_model(workdir / "model.keras")
    config = VideoPreprocessingConfig((16, 16), 4, min_resize=16, temporal_views=2)
    for each in found:
        logits = _logits(model, Path(each["path"]), config, True)
        expected = np.asarray(keras.ops.sigmoid(logits))
        names = {f"class {number}": value for number, value in enumerate(expected)}
        by_class = {row["class"]: row["probability"] for row in each["predictions"]}
        assert by_class == pytest.approx(names, rel=1e-3)

"""Names of files and folders: any UTF-8 in every command, one line about any other."""

import csv
import os
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.backends import ON_JAX
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import run_command
from trainers import checkpoints
from trainers import evaluate
from trainers import export
from trainers import make_video_records
from trainers import predict
from trainers.checkpointing.init_from import initialize
from trainers.checkpointing.keras_archive import load_keras_archive
from trainers.configuration.flags import split_sets
from trainers.data.datasets.folders import ImageFolderSource
from trainers.data.video_files import read_frames
from trainers.inference.overlays import picture_name
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

ODD = "2024-05-01T10:30:00 ü,日本🙂 [a]*?{b} %s#@='\"$&;~\\"
NOT_UTF8 = os.fsdecode(b"caf\xe9")


def _write_images(folder: Path) -> Path:
    png = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    for split in ("train", "val", "test"):
        for label in (f"b {ODD}", "a"):
            (folder / split / label).mkdir(parents=True)
            (folder / split / label / f"{ODD}.png").write_bytes(png)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an odd name, with data and a training in folders of odd names."""
    keras.backend.clear_session()
    place = tmp_path_factory.mktemp("names") / ODD
    data = _write_images(place / f"data {ODD}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        Trainer(monkeypatch, place)(
            f"run {ODD}",
            "--config.total_steps=1",
            "--config.batch_size=2",
            "--config.data.source=folder",
            f"--config.data.data_dir={data}",
            f"--config.data.eval_sets=again=folder:test@{data}",
        )
    return place


@pytest.mark.slow
def test_every_command_takes_any_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    run, data, rows = f"run {ODD}", f"data {ODD}", f"rows {ODD}.csv"
    names = Path(f"names {ODD}.txt")
    names.write_text("one\ntwo\n")
    inputs = [f"--inputs={data}/test", f"--inputs={data}/val/a/{ODD}.png"]
    for model in (f"--workdir={run}", f"--model={run}/model.keras"):
        written = [f"--output={rows}", f"--class_names={names}"]
        if model.startswith("--workdir"):
            pytest.importorskip("matplotlib")
            written.append(f"--overlay_dir=overlays {ODD}")
        run_command(monkeypatch, predict, model, *inputs, *written)
        found = {row["path"] for row in csv.DictReader(Path(rows).open(newline=""))}
        assert found == {
            f"{data}/test/a/{ODD}.png",
            f"{data}/test/b {ODD}/{ODD}.png",
            f"{data}/val/a/{ODD}.png",
        }
    assert len(os.listdir(f"overlays {ODD}")) == 3
    capsys.readouterr()
    monkeypatch.setattr(checkpoints, "FLAGS", SimpleNamespace(workdir=run))
    checkpoints.main()
    assert capsys.readouterr().out.startswith("1 ok ")
    run_command(
        monkeypatch, evaluate, f"--workdir={run}", f"--eval_sets=x=folder:test@{data},validation"
    )
    assert initialize(load_keras_archive(f"{run}/model.keras"), run).loaded
    if not ON_JAX:
        fixed = [f"--workdir={run}", f"--eval_set=folder:test@{data}", f"--output=out {ODD}"]
        run_command(monkeypatch, export, *fixed, "--format=saved_model")


def test_videos_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    from tests.helpers.tiny_videos import write_video

    monkeypatch.chdir(tmp_path)
    written = write_video(tmp_path / "a.mp4", 4, size=(16, 16))
    for name in (f"{ODD}.mp4", "2024-05-01T10:30:00.mp4", "http:a.mp4", "file:a.mp4"):
        written = written.rename(tmp_path / name)
        assert len(list(read_frames(name))) == 4
    with Path(f"{ODD}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), (written.name, "a"), (written.name, "b")])
    fixed = [f"--csv={ODD}.csv", f"--output=records {ODD}", "--workers=1"]
    run_command(monkeypatch, make_video_records, *fixed)
    assert "2 videos of 2 classes" in capsys.readouterr().out


def test_names_that_are_not_utf8(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def parse(arguments: list[str]) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: flags_parser(["x", *given]))
    for flag in ("workdir", "inputs", "config.data.data_dir"):
        given = [f"--{flag}={NOT_UTF8}"]
        with pytest.raises(SystemExit) as end:
            cli.run(lambda: None, parse)
        assert end.value.code == cli.STATUS_WRONG_USAGE
        (line,) = capsys.readouterr().err.splitlines()
        assert flag in line and "not UTF-8" not in line and "UTF-8" in line

    data = _write_images(tmp_path / "data")
    bad = data / "test" / "a" / f"{NOT_UTF8}.png"
    bad.write_bytes((data / "test" / "a" / f"{ODD}.png").read_bytes())
    with pytest.raises(ConfigurationError, match=r"not UTF-8: '.*caf\\udce9.png'. Rename it"):
        ImageFolderSource(str(data), "test")
    output = tmp_path / "rows.csv"
    fixed = [f"--workdir={place / f'run {ODD}'}", f"--output={output}", "--top_k=1"]
    with pytest.raises(DataError, match="1 of 3 inputs"):
        run_command(monkeypatch, predict, *fixed, f"--inputs={data / 'test'}")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "not UTF-8" in line
    assert len(output.read_text().splitlines()) >= 3


def test_names_of_pictures() -> None:
    assert picture_name(3, "data/cat/a b.png") == "00003_cat_a_b.png"
    assert picture_name(3, "a.png", "1_token_learner") == "00003_a_1_token_learner.png"
    assert picture_name(3, "Zürich/日本.png") == "00003_Zürich_日本.png"
    longest = picture_name(12, f"{'日' * 80}/{'ü' * 100}.png", "1_" + "x" * 100)
    assert len(longest.encode()) <= 255


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test", ["test"]),
        ("a=test,digits:test, tfds:x/y:1.0:validation", None),
        ("test@/a,b,c", ["test@/a,b,c"]),
        ("folder:test@/a,b,v=tfds:x:test@c,d,train", ["folder:test@/a,b", "v=tfds:x:test@c,d", "train"]),  # noqa: E501
        ("folder:test@a:b=c@d", ["folder:test@a:b=c@d"]),
    ],
)  # fmt: skip
def test_commas_in_evaluation_sets(text: str, expected: list[str] | None) -> None:
    assert split_sets(text) == (text.split(",") if expected is None else expected)

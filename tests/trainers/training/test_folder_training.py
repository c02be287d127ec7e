"""Photographs in a folder, from training to prediction: formats, orientation, the split."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import engine_of
from tests.helpers.small_runs import rows
from tests.helpers.small_runs import run_command
from trainers import evaluate
from trainers import predict
from trainers.checkpointing.workdir import read_file_splits
from trainers.data.datasets.folders import split_of_file
from trainers.utils.errors import ConfigurationError

Run = Callable[..., str]


def write_photograph(path: Path, left: bool, orientation: int = 1) -> None:
    """Writes one half white, the other black, as a camera held in some way stores it."""
    pixels = np.zeros((16, 16, 3), np.uint8)  # whole blocks of a JPEG, which it keeps exactly
    pixels[:, :8] = 255 * left
    pixels[:, 8:] = 255 * (not left)
    image = Image.fromarray(pixels)
    if orientation == 6:
        image = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))


def write_folder(folder: Path, count: int, orientation: int = 1) -> Path:
    """Writes so many photographs of each of two classes, of three formats, in turns."""
    for number in range(count):
        ending = ("jpg", "png", "webp")[number % 3]
        for name in ("left", "right"):
            path = folder / name / f"{number:03d}.{ending}"
            write_photograph(path, name == "left", orientation)
    return folder


@pytest.fixture
def run_evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `trainers.evaluate` and returns what it prints."""
    return lambda *arguments: _command(evaluate, arguments, monkeypatch, capsys)


@pytest.fixture
def run_predict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `trainers.predict` and returns what it prints."""
    return lambda *arguments: _command(predict, arguments, monkeypatch, capsys)


def _command(
    module: object,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "make_engine", lambda *_, **__: engine_of(1))
        run_command(patch, module, *arguments)
    return capsys.readouterr().out


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Trains on a folder of that name in a work directory of this name."""
    keras.backend.clear_session()
    trainer = Trainer(monkeypatch, tmp_path)

    def run(name: str, folder: Path, *arguments: str) -> Path:
        data = ("--config.data.source=folder", f"--config.data.data_dir={folder}")
        return trainer(name, "--config.total_steps=2", "--config.batch_size=8", *data, *arguments)

    return run


def _evaluated(printed: str) -> int:
    """Returns how many examples the last line of an evaluation counts."""
    return int(re.findall(r"num examples (\d+)", printed)[-1])


@pytest.mark.slow
def test_turned_photographs_of_all_formats(
    train: Run,
    run_evaluate: Run,
    run_predict: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = {1: tmp_path / "upright", 6: tmp_path / "turned"}
    for orientation, folder in folders.items():
        write_folder(folder, 6, orientation)
        (folder / "left" / "moving.gif").write_bytes(b"GIF89a")
    workdir = train("upright_run", folders[1])
    assert capsys.readouterr().err.count("1 .gif") == 1
    turned_run = train("turned_run", folders[6], "--config.data.exif_orientation=True")
    assert_same_arrays(checkpoint_arrays(workdir, 2), checkpoint_arrays(turned_run, 2))
    expected = rows(workdir, "validation")
    assert expected[0]["num_examples"] == 2
    assert rows(turned_run, "validation") == expected
    printed = run_evaluate(f"--workdir={turned_run}")
    assert f"loss {expected[0]['loss']:.4g}" in printed

    model = [f"--model={turned_run / 'model.keras'}"]
    answers = [
        run_predict(*which, f"--inputs={folders[6]}")
        for which in ([f"--workdir={turned_run}"], [*model, "--exif_orientation"], model)
    ]
    answers = [
        [row["probability"] for row in csv.DictReader(io.StringIO(each))] for each in answers
    ]
    assert len(answers[0]) == 2 * 12
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.slow
def test_the_split_is_kept(train: Run, run_evaluate: Run, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photographs", 30)
    workdir = train("run", folder, "--config.total_steps=1")
    listed = json.loads((workdir / "split.json").read_text())
    assert Counter(listed.values()) == {"train": 48, "validation": 6, "test": 6}
    assert listed.keys() == {str(path.relative_to(folder)) for path in folder.glob("*/*")}

    # Ten more, none of which a hash takes for training, or the run could not be resumed.
    names = (f"new{number}.png" for number in range(1000))
    added = [name for name in names if split_of_file("left", name) != "train"][:10]
    for name in added:
        write_photograph(folder / "left" / name, left=True)
    moved = folder.rename(tmp_path / "moved")
    train("run", moved, "--config.total_steps=2")
    assert json.loads((workdir / "split.json").read_text()) == listed
    hashed = Counter(split_of_file("left", name) for name in added)
    printed = run_evaluate(f"--workdir={workdir}", f"--eval_sets=folder:test@{moved}")
    assert _evaluated(printed) == 6 + hashed["test"]
    assert rows(workdir, "validation")[-1]["num_examples"] == 6 + hashed["validation"]

    # A run of an earlier release, which kept no list, goes by the hash alone.
    (workdir / "split.json").unlink()
    assert read_file_splits(str(workdir)) == {}
    paths = [path.relative_to(moved) for path in moved.glob("*/*")]
    hashed = Counter(split_of_file(*path.parts) for path in paths)
    printed = run_evaluate(f"--workdir={workdir}", f"--eval_sets=folder:test@{moved}")
    assert _evaluated(printed) == hashed["test"]
    with pytest.raises(ConfigurationError, match="run on other data .num_examples: 48"):
        train("run", moved, "--config.total_steps=3")
    assert not (workdir / "split.json").exists()
    (workdir / "split.json").write_text('{"left/000.jpg": "trian"}')
    with pytest.raises(ConfigurationError, match="split.json is damaged.*Restore it"):
        train("run", moved, "--config.total_steps=3")

"""The command that predicts files: the same answers that an evaluation judges."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import tokenlearner_keras as tk
from tests.helpers.fake_source import photograph
from tests.helpers.processes import ROOT
from tests.helpers.small_runs import TINY_MODEL
from tests.helpers.small_runs import rows
from tests.helpers.small_runs import run_command
from trainers import predict
from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.datasets.digits import digits_source
from trainers.data.preprocessing.images import evaluation_example
from trainers.data.preprocessing.normalization import normalize
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

Predict = Callable[..., str]
NUM_DIGITS = 6


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Runs the command; returns what it prints."""

    def run(*arguments: str) -> str:
        capsys.readouterr()  # what a training printed before
        run_command(monkeypatch, predict, *arguments)
        return capsys.readouterr().out

    return run


def _write_digits(folder: Path, count: int = NUM_DIGITS) -> Path:
    """Writes test digits as PNG files, a folder a class, and returns the folder."""
    source = digits_source("test")
    for index in range(min(count, source.num_examples)):
        example = source.load(tf.constant(index, tf.int64))
        path = folder / str(int(example["label"])) / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(example["image"]).numpy())
    return folder


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return _write_digits(tmp_path / "digits")


def _pixels(path: Path) -> np.ndarray:
    return tf.io.decode_png(path.read_bytes(), channels=3).numpy()


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_it_is_as_right_as_the_evaluation_says(
    command: Predict, workdir: Path, tmp_path: Path, step: int
) -> None:
    folder = _write_digits(tmp_path / "digits", 270)
    which = [] if step == 4 else [f"--checkpoint={step}"]
    found = _rows(command(f"--workdir={workdir}", f"--inputs={folder}", "--top_k=1", *which))
    assert [row["path"] for row in found] == [str(path) for path in sorted(folder.rglob("*.png"))]
    right = [row["class"] == Path(row["path"]).parent.name for row in found]
    (judged,) = [row for row in rows(workdir, "held_out") if row["step"] == step]
    assert len(right) == judged["num_examples"]
    assert np.mean(right) == pytest.approx(judged["accuracy"], abs=1e-6)


@pytest.mark.every_backend
def test_probabilities_of_the_averaged_weights(
    command: Predict, workdir: Path, digits: Path
) -> None:
    paths = sorted(digits.rglob("*.png"))
    model = keras.saving.load_model(workdir / "model.keras")  # holds the moving averages
    config = PreprocessingConfig((8, 8))
    images = [evaluation_example({"image": _pixels(path)}, config) for path in paths]
    images = normalize(np.stack(images), "unit")
    expected = np.asarray(keras.ops.softmax(model(images, training=False)))
    for batch_size in (1, 4, 100):
        flag = f"--batch_size={batch_size}"
        found = _rows(command(f"--workdir={workdir}", f"--inputs={digits}", "--top_k=99", flag))
        assert [row["path"] for row in found[::10]] == [str(path) for path in paths]
        assert [int(row["rank"]) for row in found] == list(range(1, 11)) * len(paths)
        for row in found:
            probability = expected[paths.index(Path(row["path"])), int(row["class"])]
            assert float(row["probability"]) == pytest.approx(probability, rel=1e-4)
        values = np.array([float(row["probability"]) for row in found]).reshape(-1, 10)
        assert (np.diff(values) <= 0).all()


def test_bad_files_are_named_and_left_out(
    command: Predict, workdir: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = digits.parent / "predictions.csv"
    output.write_text("older")
    jpeg = tf.io.encode_jpeg(photograph()).numpy()
    bad = {
        "text.png": (b"no image", "Unknown image file format"),
        "cut.jpg": (jpeg[: len(jpeg) // 3], "Invalid JPEG data"),
        "empty.bmp": (b"", "empty.bmp: "),
    }
    for name, (content, _) in bad.items():
        (digits / name).write_bytes(content)
    (digits / "gone.png").symlink_to("nowhere")
    (digits / "notes.txt").write_text("of another kind, which is skipped")
    for name, content in (("moving.gif", b"GIF89a"), ("clip.mp4", b"")):
        (digits.parent / name).write_bytes(content)
    reasons = {name: reason for name, (_, reason) in bad.items()}
    reasons |= {"gone.png": "No such file", "moving.gif": "GIF is not supported"}
    reasons["clip.mp4"] = "a video, and the model takes images"
    named = [str(digits.parent / "moving.gif"), str(digits.parent / "clip.mp4")]
    inputs = f"--inputs={digits},{','.join(named)}"
    with pytest.raises(DataError, match="6 of 12 inputs"):
        command(f"--workdir={workdir}", inputs, f"--output={output}")
    said = capsys.readouterr().err.splitlines()
    for name, reason in reasons.items():
        (line,) = [line for line in said if line.startswith("left out: ") and name in line]
        assert reason in line
    assert any(re.search(r"skipped.*: 1 \.txt$", line) for line in said)
    assert len(_rows(output.read_text())) == 5 * NUM_DIGITS
    with pytest.raises(DataError, match="No input can be read, of 1"):
        command(f"--workdir={workdir}", f"--inputs={digits / 'text.png'}", f"--output={output}")
    assert len(_rows(output.read_text())) == 5 * NUM_DIGITS
    assert sorted(path.name for path in output.parent.iterdir() if path.is_file()) == [
        "clip.mp4",
        "moving.gif",
        "predictions.csv",
    ]


def test_nothing_is_predicted_twice(command: Predict, workdir: Path, digits: Path) -> None:
    paths = sorted(digits.rglob("*.png"))
    (digits / "link").symlink_to(digits)
    (digits.parent / "with,comma.png").write_bytes(paths[0].read_bytes())
    again = f"{paths[2]},{digits},{paths[2].parent}/../{paths[2].parent.name}"
    comma = digits.parent / "with,comma.png"
    found = json.loads(
        command(
            f"--workdir={workdir}",
            f"--inputs={again}",
            f"--inputs={comma}",
            "--format=json",
            "--top_k=2",
        )
    )
    expected = [paths[2], *(path for path in paths if path != paths[2]), comma]
    assert [each["path"] for each in found] == [str(path) for path in expected]
    for each in found:
        assert [list(row) for row in each["predictions"]] == [["rank", "class", "probability"]] * 2
        assert [row["rank"] for row in each["predictions"]] == [1, 2]
    copy, original = ([row["class"] for row in found[n]["predictions"]] for n in (-1, 1))
    assert copy == original


@pytest.mark.every_backend
def test_pictures_of_what_the_tokens_look_at(
    command: Predict, workdir: Path, digits: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    first = min(digits.rglob("*.png"))
    odd = first.with_name("..%ü two")  # two files of the same name, and one of an odd one
    odd.write_bytes(first.read_bytes())
    twin = tmp_path / first.name
    twin.write_bytes(first.read_bytes())
    pictures = tmp_path / "pictures"
    inputs = f"--inputs={first},{odd},{twin}"
    command(f"--workdir={workdir}", inputs, f"--overlay_dir={pictures}")
    label, place = first.parent.name, tmp_path.name
    names = [f"00001_{label}_{first.stem}.png", f"00002_{label}_.._ü_two.png"]
    names.append(f"00003_{place}_{first.stem}.png")
    assert sorted(path.name for path in pictures.iterdir()) == names
    sizes = {_pixels(pictures / name).shape for name in names}
    (shape,) = sizes
    assert shape[1] > 2 * shape[0]  # the image, and the two tokens beside it
    assert (_pixels(pictures / names[0]) == _pixels(pictures / names[2])).all()
    # No picture takes the place of a file.
    before = _contents(pictures)
    with pytest.raises(ConfigurationError, match="a new or an empty folder"):
        command(f"--workdir={workdir}", f"--inputs={first}", f"--overlay_dir={pictures}")
    assert _contents(pictures) == before
    with pytest.raises(ConfigurationError, match="lies in --inputs"):
        command(
            f"--workdir={workdir}", f"--inputs={digits}", f"--overlay_dir={digits / 'pictures'}"
        )


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("flag", ["output", "overlay_dir"])
def test_a_place_that_takes_no_files_is_told_before_anything_is_predicted(
    command: Predict, workdir: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr(predict, "_predict", lambda *_: pytest.fail("predicted"))
    pytest.importorskip("matplotlib")
    (digits.parent / "file").write_text("kept")
    place = digits.parent / "file" / "below"
    with pytest.raises(ConfigurationError, match=f"--{flag}=.*cannot be written.*another place"):
        command(f"--workdir={workdir}", f"--inputs={digits}", f"--{flag}={place}")
    assert (digits.parent / "file").read_text() == "kept"


def test_folders_are_made(command: Predict, workdir: Path, digits: Path, tmp_path: Path) -> None:
    output = tmp_path / "two" / "folders" / "p.csv"
    command(f"--workdir={workdir}", f"--inputs={digits}", f"--output={output}")
    assert len(_rows(output.read_text())) == 5 * NUM_DIGITS


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "layer", "nested", "logits"])
def test_answers_that_are_probabilities_already(
    command: Predict, digits: Path, tmp_path: Path, ending: str
) -> None:
    images = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(images)
    name = ending if ending in ("softmax", "sigmoid") else None
    x = keras.layers.Dense(3, activation=name)(x)
    if ending in ("layer", "nested"):
        x = keras.layers.Softmax()(x)
    model = keras.Model(images, x)
    if ending == "nested":
        model = keras.Sequential([images, model])
    path = tmp_path / "any.keras"
    model.save(path)
    found = _rows(command(f"--model={path}", f"--inputs={digits}", "--top_k=3"))
    pixels = np.stack([_pixels(each) for each in sorted(digits.rglob("*.png"))])
    resized = [evaluation_example({"image": each}, PreprocessingConfig((8, 8))) for each in pixels]
    expected = model(normalize(np.stack(resized), "unit"))
    if ending == "logits":
        expected = keras.ops.softmax(expected)
    expected = -np.sort(-np.asarray(expected), axis=-1)
    values = np.array([float(row["probability"]) for row in found]).reshape(expected.shape)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


@pytest.fixture
def plain_model(tmp_path: Path) -> Path:
    """A model of anybody's for images of any size, without a TokenLearner."""
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    model = keras.Model(images, keras.layers.Dense(3)(x))
    model.save(tmp_path / "plain.keras")
    return tmp_path / "plain.keras"


def test_a_keras_file(command: Predict, plain_model: Path, digits: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n")
    path = tmp_path / "image.png"
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    path.write_bytes(tf.io.encode_png(image).numpy())
    fixed = [f"--model={plain_model}", f"--inputs={path}", "--image_size=8"]
    whole = ["--crop_fraction=1", "--normalization=zero_one", "--activation=sigmoid"]
    found = _rows(command(*fixed, *whole, f"--class_names={names}"))
    resized = tf.image.resize(image, (8, 8), "bicubic")
    resized = tf.clip_by_value(tf.round(resized), 0, 255) / 255
    logits = keras.saving.load_model(plain_model)(resized[None].numpy())[0]
    probabilities = np.asarray(keras.ops.sigmoid(logits))
    expected = dict(zip(("red", "green", "blue"), probabilities, strict=True))
    assert {row["class"]: float(row["probability"]) for row in found} == pytest.approx(
        expected, rel=1e-4
    )
    # Without names, of the window in the middle.
    assert {row["class"] for row in _rows(command(*fixed))} == {"0", "1", "2"}
    with pytest.raises(ConfigurationError, match="images of any size.*--image_size=PIXELS"):
        command(*fixed[:2])
    with pytest.raises(ConfigurationError, match="--overlay_dir: .* has no TokenLearner"):
        command(*fixed, f"--overlay_dir={tmp_path / 'pictures'}")
    names.write_text("red\ngreen\n")
    with pytest.raises(ConfigurationError, match="each of the model's 3 classes, received 2"):
        command(*fixed, f"--class_names={names}")


def test_the_file_of_a_work_directory(
    command: Predict, workdir: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_workdir = _rows(command(f"--workdir={workdir}", f"--inputs={digits}"))
    # What a file is taken for by default is what this training has set.
    model = [f"--model={workdir / 'model.keras'}", f"--inputs={digits}"]
    by_file = _rows(command(*model))
    assert [row["path"] for row in by_file] == [row["path"] for row in by_workdir]
    values = [[float(row["probability"]) for row in table] for table in (by_workdir, by_file)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    with pytest.raises(ConfigurationError, match="--image_size=9: the model takes 8x8"):
        command(*model, "--image_size=9")
    with pytest.raises(ConfigurationError, match="nowhere.txt: there is no such file"):
        command(*model, "--class_names=nowhere.txt")
    assert f"--workdir={workdir} also takes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --workdir=DIR and --model=FILE.keras. Received none"),
        (["--workdir=DIR", "--model=a.keras"], "Received both"),
        (["--workdir=DIR"], "--inputs=FILE_OR_FOLDER.*Received none"),
        (["--workdir=DIR", "--inputs=nowhere.png"], "nowhere.png: there is no such file"),
        (["--workdir=DIR", "--inputs=."], "the model takes images, and no file there ends in"),
        (["--workdir=DIR", "--inputs=.", "--checkpoint=3"], "no checkpoint of step 3"),
        (["--workdir=nowhere", "--inputs=."], "no config.json"),
        (["--workdir=DIR", "--inputs=.", "--image_size=8"], "--image_size goes with --model"),
        (["--model=a.keras", "--inputs=.", "--checkpoint=8"], "goes with --workdir"),
        (["--model=a.keras", "--inputs=."], "a.keras: there is no such file"),
        (["--model=names.txt", "--inputs=."], "Expected --model=FILE.keras"),
        (["--model=bad.keras", "--inputs=."], "or it is truncated"),
        (["--workdir=DIR", "--inputs=.", "--output=."], "is a directory"),
        (["--workdir=DIR", "--inputs=names.txt", "--output=names.txt"], "would replace"),
        (["--workdir=DIR", "--inputs=.", "--frames_per_second=0"], "--frames_per_second"),
    ],
)
def test_wrong_usage(
    command: Predict,
    workdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("a\n")
    (tmp_path / "bad.keras").write_text("a part")
    with pytest.raises(ConfigurationError, match=message):
        command(*(each.replace("DIR", str(workdir)) for each in arguments))


def test_models_of_another_kind(command: Predict, digits: Path, tmp_path: Path) -> None:
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]).save(tmp_path / "flat.keras")
    named = f"--inputs={digits}"
    with pytest.raises(ConfigurationError, match=r"Received one from \(None, 8\)"):
        command(f"--model={tmp_path / 'flat.keras'}", named)
    features = tk.create_model(**TINY_MODEL, classifier=None)
    features.save(tmp_path / "features.keras")
    with pytest.raises(ConfigurationError, match=r"to \(batch, classes\)"):
        command(f"--model={tmp_path / 'features.keras'}", named)


@pytest.mark.slow
def test_as_a_process(workdir: Path, digits: Path) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "trainers.predict", f"--workdir={workdir}", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run(f"--inputs={digits}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("path,rank,class,probability\n")
    assert len(_rows(done.stdout)) == 5 * NUM_DIGITS
    assert f"predicting: {NUM_DIGITS} of {NUM_DIGITS}" in done.stderr
    (digits / "bad.png").write_text("no image")
    bad = run(f"--inputs={digits}")
    assert bad.returncode == 1 and bad.stdout == done.stdout
    assert "error: 1 of 7 inputs" in bad.stderr and "Traceback" not in bad.stderr
    wrong = run(f"--inputs={digits}", "--top_k=0")
    assert wrong.returncode == 2 and not wrong.stdout and "top_k" in wrong.stderr


@pytest.mark.slow
def test_the_help_has_all_flags() -> None:
    command = [sys.executable, "-m", "trainers.predict", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    values = flags.FlagValues()
    predict.define_flags(values)
    missing = [each for each in values if f"--{each}:" not in shown.replace("[no]", "")]
    assert not missing

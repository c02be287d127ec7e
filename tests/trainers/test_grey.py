"""A model of grey images, from a folder in colours to predictions and exports."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

import tokenlearner_keras as tk
from tests.helpers.backends import only_on_tensorflow
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.small_runs import TINY_MODEL
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.video_record_sets import write_small_set
from tests.helpers.video_runs import CONVOLUTIONS
from tests.helpers.video_runs import TRANSFORMER
from tests.helpers.vit_checkpoints import parameter_value
from trainers.checkpointing.workdir import read_configuration
from trainers.configuration.configuration import whole_config
from trainers.data.preprocessing.augmentation import to_channels
from trainers.evaluate import evaluate
from trainers.export import export
from trainers.exporting.formats import FORMATS
from trainers.exporting.formats import missing_modules
from trainers.predict import predict
from trainers.preflight import check_steps
from trainers.train import train
from trainers.utils.errors import ConfigurationError


def _write_folder(folder: Path, grey: bool) -> Path:
    """Writes six noisy images of each of two classes, in colours or turned to grey."""
    generator = np.random.default_rng(0)
    for number in range(6):
        for level, name in ((60, "dark"), (150, "light")):
            pixels = generator.integers(level, level + 100, (10, 12, 3)).astype(np.uint8)
            shown = to_channels(tf.constant(pixels), 1 if grey else 3)
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(shown).numpy())
    return folder


def _config(folder: Path, **changes: Any) -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 8,
            "total_steps": 4,
            "model": {**TINY_MODEL, "channels": 1, "dropout": 0.1},
            "data": {"source": "folder", "data_dir": str(folder), "normalization": "imagenet"},
            "augmentation": {"randaugment_layers": 1},
            "optimizer": {"schedule": "constant"},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of four steps, and its folder, in colours."""
    folder = _write_folder(tmp_path_factory.mktemp("photographs"), grey=False)
    workdir = tmp_path_factory.mktemp("grey") / "run"
    train(_config(folder), workdir, strategy="one_device")
    return workdir, folder


@pytest.mark.slow
@pytest.mark.every_backend
def test_colours_are_trained_on_as_grey(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """To the last bit, and also by a run that was stopped in between."""
    grey = _write_folder(tmp_path / "grey", grey=True)
    train(_config(grey, total_steps=2), tmp_path / "run", strategy="one_device")
    train(_config(grey), tmp_path / "run", strategy="one_device")
    assert_same_arrays(checkpoint_arrays(trained[0], 4), checkpoint_arrays(tmp_path / "run", 4))
    assert read_configuration(str(trained[0]))[1].channels == 1


@pytest.mark.slow
@pytest.mark.every_backend
def test_evaluation_and_prediction(trained: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    workdir, folder = trained
    metrics = evaluate(workdir, strategy="one_device")["validation"]
    assert np.isfinite(metrics["loss"]) and metrics["num_examples"] > 0
    larger = evaluate(workdir, image_size=16, strategy="one_device")["validation"]
    assert np.isfinite(larger["loss"])
    assert keras.saving.load_model(workdir / "model.keras").input_shape == (None, 8, 8, 1)
    grey = _write_folder(tmp_path / "grey", grey=True)
    overlays = tmp_path / "overlays"
    answers = [
        predict(workdir, folder, overlay_dir=overlays).probabilities,
        predict(workdir, grey).probabilities,
    ]
    np.testing.assert_array_equal(*answers)
    assert len(list(overlays.iterdir())) == len(answers[0]) == 12
    # A file knows its channels, not the training's normalization.
    assert predict(workdir / "model.keras", folder).probabilities.shape == (12, 2)


@pytest.mark.slow
@only_on_tensorflow("an export writes its graphs")
@pytest.mark.parametrize(
    ("format", "input"),
    [
        ("saved_model", None),
        *((format, each) for format in FORMATS[1:] for each in ("normalized", "uint8")),
    ],
)
def test_exports(
    trained: tuple[Path, Path], tmp_path: Path, format: str, input: str | None
) -> None:
    """Each is compared with Keras before it is written."""
    if missing_modules(format):
        pytest.skip("needs the extra export")
    path = export(trained[0], format, tmp_path / "model", input=input)
    if format == "saved_model":
        signatures = tf.saved_model.load(str(path)).signatures
        answers = signatures["serving_default"](images=tf.zeros((2, 30, 50, 1), tf.uint8))
        assert answers["logits"].shape == (2, 2)
    beside = json.loads(path.with_name("model.json").read_text())
    assert beside["channels"] == "grey"
    assert beside["mean"] == pytest.approx([(0.485 + 0.456 + 0.406) / 3 * 255])
    assert beside["std"] == pytest.approx([(0.229 + 0.224 + 0.225) / 3 * 255])


@only_on_tensorflow("an export writes its graphs")
@pytest.mark.parametrize(
    ("format", "model"),
    [
        pytest.param(
            format,
            model,
            # One of each model in a run of all tests, all by -m extra.
            marks=pytest.mark.slow if format == quick else pytest.mark.extra,
            id=f"{format}-{model['name']}",
        )
        for quick, model in (("saved_model", TRANSFORMER), ("onnx", CONVOLUTIONS))
        for format in FORMATS
    ],
)
def test_exports_of_grey_videos(tmp_path: Path, format: str, model: dict[str, Any]) -> None:
    if missing_modules(format):
        pytest.skip("needs the extra export")
    built = tk.create_model(num_classes=3, channels=1, **model)
    built.save(tmp_path / "any.keras")
    videos = write_small_set(tmp_path / "records", multi_label=False)
    eval_set = f"records:test@{videos}"
    assert export(tmp_path / "any.keras", format, tmp_path / "out", eval_set=eval_set).exists()


@pytest.mark.slow
@pytest.mark.every_backend
@pytest.mark.parametrize("model", [TRANSFORMER, CONVOLUTIONS], ids=["transformer", "x2plus1d"])
def test_training_on_grey_videos(tmp_path: Path, model: dict[str, Any]) -> None:
    videos = write_small_set(tmp_path / "records", multi_label=False)
    config = ConfigDict(
        {
            "batch_size": 4,
            "total_steps": 1,
            "model": {**model, "channels": 1},
            "data": {"source": "records", "data_dir": str(videos), "normalization": "clip"},
            "video": {"min_resize": 32, "randaugment_layers": 1},
        }
    )
    metrics = train(config, tmp_path / "run", strategy="one_device")["validation"]
    assert np.isfinite(metrics["loss"])


@pytest.mark.slow
@pytest.mark.every_backend
def test_public_weights_and_colour_runs_start_a_grey_model(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    golden = {
        "name": "vit_ti8",
        "image_size": 32,
        "width": 24,
        "depth": 3,
        "num_heads": 3,
        "mlp_dim": 48,
    }
    still = {"learning_rate": 0.0}
    for channels, source in ((3, CHECKPOINT), (1, CHECKPOINT), (1, tmp_path / "3")):
        config = _config(trained[1], total_steps=1, init_from=str(source), optimizer=still)
        config.model = {**golden, "channels": channels}
        name = str(channels) if source == CHECKPOINT else "from 3"
        train(config, tmp_path / name, strategy="one_device")
    colour, *greys = (
        parameter_value(
            keras.saving.load_model(tmp_path / name / "model.keras"), "embedding/kernel"
        )
        for name in ("3", "1", "from 3")
    )
    for grey in greys:
        np.testing.assert_allclose(grey, colour.sum(axis=2, keepdims=True), atol=1e-6)


@pytest.mark.every_backend
def test_other_channels_are_refused_before_any_work(tmp_path: Path) -> None:
    config = _config(tmp_path, model={**TINY_MODEL, "channels": 4})
    with pytest.raises(ConfigurationError, match="model.channels must be 1 or 3"):
        check_steps(whole_config(config))
    config = _config(tmp_path, model={**TRANSFORMER, "channels": 1}, video={"color_drop": 0.1})
    with pytest.raises(ConfigurationError, match="color_drop must be 0 with model.channels=1"):
        check_steps(whole_config(config))

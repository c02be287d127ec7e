"""The commands as functions of a program or a notebook, called several times in one process."""

import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from tests.helpers.backends import ON_JAX
from tests.helpers.backends import only_on_tensorflow
from tests.helpers.small_runs import TINY_CONFIG
from tests.helpers.small_runs import TINY_MODEL
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import rows
from trainers.data.datasets.digits import digits_source
from trainers.evaluate import evaluate
from trainers.export import export
from trainers.inference.keras_file import InputSettings
from trainers.predict import predict
from trainers.train import train
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

OTHER = "tensorflow" if ON_JAX else "jax"


def _config(**changes: Any) -> ConfigDict:
    """Returns the tiny experiment, with the keys that differ from the defaults only."""
    return ConfigDict(
        {
            "batch_size": 32,
            "total_steps": 2,
            "model": TINY_MODEL,
            "data": {"source": "digits", "final_split": "test"},
            "augmentation": {"crop": "none", "flip": False},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, whose metrics are in `metrics.jsonl`."""
    workdir = tmp_path_factory.mktemp("functions") / "run"
    train(_config(), workdir, strategy="one_device")
    return workdir


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three test digits and a file that is not an image."""
    folder = tmp_path_factory.mktemp("images")
    source = digits_source("test")
    for index in range(3):
        pixels = source.load(tf.constant(index, tf.int64))["image"]
        (folder / f"{index}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    (folder / "3.png").write_bytes(b"no image")
    return folder


@pytest.mark.slow
@pytest.mark.every_backend
def test_train_twice_evaluate_and_resume(tmp_path: Path) -> None:
    config = _config()
    before = config.to_dict()
    first = train(config, tmp_path / "first", strategy="one_device")
    assert config.to_dict() == before
    assert first.keys() == {"validation", "test"}
    last = {row.pop("split"): row for row in rows(tmp_path / "first")}
    for split, metrics in first.items():
        assert {"step": 2, **metrics} == last[split]
    # A recipe, another work directory, and a call that finds the training finished.
    recipe = config_file(tmp_path, TINY_CONFIG.replace("total_steps = 4", "total_steps = 2"))
    second = train(recipe, str(tmp_path / "second"), strategy="one_device")
    assert second.keys() == {"validation"}
    assert train(config, tmp_path / "first", strategy="one_device") == first
    # The same weights again, though a model was trained before it in this process.
    assert train(config, tmp_path / "third", strategy="one_device") == first
    arrays = [checkpoint_arrays(tmp_path / name, 2) for name in ("first", "third")]
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])
    found = evaluate(tmp_path / "first", strategy="one_device")
    assert found == {"validation": pytest.approx(first["validation"])}
    assert evaluate(tmp_path / "first", split="test", strategy="one_device") == {
        "test": pytest.approx(first["test"])
    }


@pytest.mark.slow
def test_train_on_two_devices_twice(tmp_path: Path) -> None:
    results = [train(_config(), tmp_path / name, strategy="mirrored") for name in "ab"]
    assert results[0] == results[1]
    assert evaluate(tmp_path / "a", strategy="mirrored").keys() == {"validation"}


@pytest.mark.slow
def test_train_in_a_thread_and_leave_the_process_as_it_was(tmp_path: Path) -> None:
    config = _config(dtype_policy="mixed_bfloat16")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    policy, form = keras.config.dtype_policy().name, warnings.formatwarning
    assert train(config, tmp_path / "rehearsed", strategy="one_device", dry_run=True) == {}
    assert not (tmp_path / "rehearsed").exists()
    results = []

    def run() -> None:
        results.append(train(config, tmp_path / "thread", strategy="one_device"))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results[0].keys() == {"validation", "test"}
    train(config, tmp_path / "main", strategy="one_device")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert (keras.config.dtype_policy().name, warnings.formatwarning) == (policy, form)


@pytest.mark.parametrize("function", [train, evaluate])
def test_another_engine_than_that_of_keras(trained: Path, function: Any) -> None:
    arguments = (_config(), trained) if function is train else (trained,)
    with pytest.raises(ConfigurationError, match=f"Set KERAS_BACKEND={OTHER} before Keras is"):
        function(*arguments, engine=OTHER)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"total_steps": 1}, "Expected a configuration: an ml_collections.ConfigDict, or the path"),
        (_config(batch_sizes=3), "Unknown configuration key 'batch_sizes'.*batch_size"),
        ("nowhere.py", "There is no configuration file 'nowhere.py'"),
    ],
)
def test_wrong_configurations(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(config, tmp_path)


def test_train_needs_a_work_directory() -> None:
    with pytest.raises(ConfigurationError, match="Expected --workdir=DIR"):
        train(_config(), None)  # type: ignore[arg-type]


@pytest.mark.every_backend
def test_predict_images(trained: Path, images: Path, tmp_path: Path) -> None:
    named = [images / "2.png", images / "0.png"]
    predictions = predict(trained, named, top_k=3, overlay_dir=tmp_path / "overlays")
    assert predictions.names == tuple(map(str, named))
    assert predictions.probabilities.shape == (2, 3)
    assert predictions.probabilities.dtype == np.float32
    assert (np.diff(predictions.probabilities) <= 0).all()
    assert all(len(row) == 3 for row in predictions.classes) and not predictions.left_out
    assert len(list((tmp_path / "overlays").iterdir())) == 2
    whole = predict(trained, images, top_k=10)
    assert whole.probabilities.sum(axis=1) == pytest.approx(1, rel=1e-5)
    (line,) = whole.left_out
    assert "3.png" in line and len(whole.names) == 3
    assert whole.classes[2][:3] == predictions.classes[0]


def test_predict_with_a_keras_file(trained: Path, images: Path) -> None:
    settings = InputSettings(crop_fraction=0.875)
    model = trained / "model.keras"
    found = predict(model, images / "0.png", settings=settings)
    expected = predict(trained, images / "0.png")
    assert found.classes == expected.classes
    assert found.probabilities == pytest.approx(expected.probabilities, rel=1e-4)
    with pytest.raises(ConfigurationError, match="a work directory has its own settings"):
        predict(trained, images, settings=settings)
    with pytest.raises(ConfigurationError, match="a .keras file has no checkpoints"):
        predict(model, images, checkpoint=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top_k": 0}, "--top_k must be at least 1. Received: 0"),
        ({"batch_size": 0}, "--batch_size must be at least 1"),
        ({"frames_per_second": float("nan")}, "must be a number above 0"),
        ({"format": "xml"}, "--format must be one of csv, json. Received: 'xml'"),
    ],
)
def test_wrong_arguments_of_predict(
    trained: Path, images: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        predict(trained, images, **wrong)


def test_predict_nothing_that_can_be_read(trained: Path, images: Path) -> None:
    with pytest.raises(DataError, match="No input can be read, of 1"):
        predict(trained, images / "3.png")


@pytest.mark.slow
@only_on_tensorflow("exports are made from its graphs")
def test_export_twice(trained: Path, tmp_path: Path) -> None:
    precise = tf.config.experimental.tensor_float_32_execution_enabled()
    for name in ("first", "second"):
        assert export(trained, "saved_model", tmp_path / name) == tmp_path / name
        assert tf.saved_model.load(str(tmp_path / name)).signatures
    assert tf.config.experimental.tensor_float_32_execution_enabled() == precise
    with pytest.raises(ConfigurationError, match="is there already"):
        export(trained, "saved_model", tmp_path / "first")
    with pytest.raises(ConfigurationError, match="Received saved_modle. Did you mean 'saved_model"):
        export(trained, "saved_modle", tmp_path / "third")

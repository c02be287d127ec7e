"""Models that anybody compiled, fitted and saved: predicted, exported and started from."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tokenlearner_keras as tk
from tests.helpers.backends import ON_JAX
from tests.helpers.small_runs import TINY_MODEL
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import run_command
from tests.helpers.small_runs import write_images
from trainers import export
from trainers import predict
from trainers.checkpointing.init_from import initialize
from trainers.checkpointing.keras_archive import load_keras_archive
from trainers.exporting import runtime_process
from trainers.exporting.runtime_check import Case
from trainers.exporting.runtime_check import relative_difference
from trainers.inference.keras_file import InputSettings
from trainers.inference.keras_file import load_keras_file

layers = keras.layers


class OwnLoss(keras.losses.Loss):
    """A loss that no other process knows."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the mean square, whatever the labels."""
        return keras.ops.mean(y_pred**2, axis=-1)


def own_metric(y_true: Any, y_pred: Any) -> Any:
    """Returns a constant; registered nowhere."""
    return keras.ops.zeros(()) * keras.ops.mean(y_pred)


CLASSIFICATION = "sparse_categorical_crossentropy"


def _sequential() -> keras.Model:
    model = keras.Sequential([layers.Flatten(), layers.Dropout(0.5), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["acc"], run_eagerly=True)
    return model


def _convolutions() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = layers.RandomFlip()(layers.Rescaling(2.0)(images))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="swish")(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, layers.Dense(3, activation="softmax")(x))
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10, warmup_steps=2)
    loss = "sparse_categorical_crossentropy"
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    model.compile(optimizer, loss, metrics=[own_metric], run_eagerly=True)
    return model


def _nested() -> keras.Model:
    inner = keras.Input((8, 8, 3))
    backbone = keras.Model(inner, layers.Dense(4)(layers.Flatten()(inner)), name="backbone")
    backbone.compile("rmsprop", OwnLoss())
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.ops.softmax(layers.Dense(3)(backbone(images))))
    optimizer = keras.optimizers.AdamW(1e-3, global_clipnorm=1.0, use_ema=True)
    model.compile(optimizer, OwnLoss(), run_eagerly=True)
    return model


def _tokens() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = tk.TokenLearnerV11(2)(layers.Conv2D(4, 2, 2)(images))
    model = keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    metrics = [keras.metrics.SparseTopKCategoricalAccuracy(2)]
    model.compile(keras.optimizers.Lamb(), OwnLoss(), metrics=metrics, run_eagerly=True)
    return model


def _transformer() -> keras.Model:
    keras.config.set_dtype_policy("mixed_float16")
    model = tk.create_model(**TINY_MODEL, num_classes=3)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Lion(1e-3))
    model.compile(optimizer, OwnLoss(), run_eagerly=True)
    keras.config.set_dtype_policy("float32")
    return model


MODELS: dict[str, Callable[[], keras.Model]] = {
    "Sequential": _sequential,
    "convolutions": _convolutions,
    "nested": _nested,
    "Keras with a TokenLearner": _tokens,
    "Vision Transformer": _transformer,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on a folder of images of two classes."""
    keras.backend.clear_session()
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "data", 2)
    data = ["--config.data.source=folder", f"--config.data.data_dir={folder / 'data'}"]
    short = ["--config.total_steps=1", "--config.batch_size=2", "--config.data.final_split=None"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        return Trainer(monkeypatch, folder)("run", *data, *short)


QUICK = ("Keras with a TokenLearner", "of a training")


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in (*MODELS, "of a training")
    ]
)
def saved(request: pytest.FixtureRequest, tmp_path: Path, workdir: Path) -> tuple[Path, Any]:
    """A file of a model after a step of its training, and the model."""
    if request.param not in MODELS:
        path = workdir / "model.keras"
        return path, keras.saving.load_model(path, compile=False)
    model = MODELS[request.param]()
    model.fit(np.random.rand(2, 8, 8, 3), np.array([0, 2]), verbose=0)
    model.save(tmp_path / "compiled.keras")
    return tmp_path / "compiled.keras", model


def _in_this_process(format: str, path: str, cases: list[Case]) -> dict[str, float]:
    """As `check_in_runtime`, without the seconds that a process takes to begin."""
    runtime = runtime_process._saved_model(path)
    return {
        case.name: relative_difference(
            np.concatenate([runtime(case.signature, batch) for batch in case.batches]),
            case.expected,
        )
        for case in cases
    }


def test_predicted_exported_and_started_from(
    saved: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, expected = saved
    image = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    image.write_bytes(tf.io.encode_png(pixels).numpy())
    capsys.readouterr()
    run_command(monkeypatch, predict, f"--model={path}", f"--inputs={image}", "--crop_fraction=1")
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    answers = np.asarray(expected(pixels[None] / np.float32(127.5) - 1, training=False))[0]
    if abs(answers.sum() - 1) > 1e-3:
        answers = np.asarray(keras.ops.softmax(answers.astype(np.float32)))
    answers = np.sort(answers)[::-1][:5]
    tolerance = 2e-3 if expected.compute_dtype == "float16" else 1e-4
    np.testing.assert_allclose([float(row["probability"]) for row in found], answers, tolerance)

    copy = load_keras_archive(str(path))
    copy.set_weights([np.zeros_like(each) for each in copy.get_weights()])
    report = initialize(copy, str(path))
    assert report.loaded and not report.missing
    for left, right in zip(copy.trainable_weights, expected.trainable_weights, strict=True):
        np.testing.assert_array_equal(left, right)

    if not ON_JAX:
        monkeypatch.setattr(export, "check_in_runtime", _in_this_process)
        data = ["--eval_set=digits:test", f"--output={tmp_path / 'exported'}"]
        run_command(monkeypatch, export, f"--model={path}", "--format=saved_model", *data)
        assert (tmp_path / "exported" / "saved_model.pb").exists()


def test_class_names_of_a_training(workdir: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes((workdir / "model.keras").read_bytes())
    values = json.loads((workdir / "config.json").read_text())
    values["resolved_data"]["class_names"] = ["cat", "dog"]

    def classes(text: str) -> tuple[str, ...]:
        (tmp_path / "config.json").write_text(text)
        return load_keras_file(str(path), InputSettings()).class_names

    assert classes(json.dumps(values)) == ("cat", "dog")
    # Not those of another program's file, nor of a training of other classes.
    values["resolved_data"]["class_names"] = ["cat"]
    for text in ("[]", "no JSON", json.dumps(values)):
        assert classes(text) == ("0", "1")

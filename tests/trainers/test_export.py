"""Exports: each format in its own runtime, and what happens when its outputs differ."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from numpy.typing import NDArray

import tokenlearner_keras as tk
from tests.helpers.backends import only_on_tensorflow
from tests.helpers.processes import ROOT
from tests.helpers.small_runs import TINY_MODEL
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import run_command
from tests.helpers.video_record_sets import write_small_set
from tests.helpers.video_runs import CONVOLUTIONS
from tests.helpers.video_runs import TRANSFORMER
from trainers import export
from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.datasets.digits import digits_source
from trainers.data.pipeline import evaluation_dataset
from trainers.data.preprocessing.images import evaluation_example
from trainers.data.preprocessing.normalization import normalize
from trainers.exporting import formats
from trainers.exporting import runtime_process
from trainers.exporting.formats import FORMATS
from trainers.exporting.formats import NORMALIZED
from trainers.exporting.formats import SERVING
from trainers.exporting.formats import missing_modules
from trainers.exporting.runtime_check import TOLERANCE
from trainers.exporting.runtime_check import Case
from trainers.exporting.runtime_check import check_differences
from trainers.exporting.runtime_check import check_in_runtime
from trainers.exporting.runtime_check import relative_difference
from trainers.exporting.served_model import in_float32
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import ExportError

Export = Callable[..., Path]

pytestmark = only_on_tensorflow("an export writes its graphs")


def _needs(format: str) -> None:
    missing = missing_modules(format)
    if missing:
        pytest.skip(f"needs {', '.join(missing)}, of the extra export")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run in bfloat16 with moving averages, on images that its evaluation crops."""
    keras.backend.clear_session()
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Trainer(monkeypatch, tmp_path_factory.mktemp("trained"))(
            "run", "--config.ema_decay=0.5", "--config.dtype_policy=mixed_bfloat16"
        )
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Export:
    """Runs the command; returns where its output is, or would be."""

    def run(*arguments: str) -> Path:
        output = tmp_path / "exported"
        run_command(monkeypatch, export, f"--output={output}", *arguments)
        return output

    return run


def _differences(output: str) -> dict[str, float]:
    """Returns what the command has printed, by the name of the case."""
    lines = [line for line in output.splitlines() if ": relative difference " in line]
    return {
        name: float(value)
        for name, value in (line.split(": relative difference ") for line in lines)
    }


def _finished_model(workdir: Path) -> keras.Model:
    return in_float32(keras.saving.load_model(workdir / "model.keras", compile=False))


# --------------------------------------------------------------------------- formats
@pytest.mark.parametrize("input", ["normalized", pytest.param("uint8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("format", [name for name in FORMATS if name != "saved_model"])
def test_one_function(
    command: Export, workdir: Path, capsys: pytest.CaptureFixture[str], format: str, input: str
) -> None:
    _needs(format)
    output = command(f"--workdir={workdir}", f"--format={format}", f"--input={input}")
    printed = capsys.readouterr().out
    assert "32 examples of digits/validation" in printed
    differences = _differences(printed)
    assert list(differences) == [f"{input}, batch 1", f"{input}, batch 7"]
    assert all(0 <= difference <= TOLERANCE for difference in differences.values())
    _check_metadata(format, output, input)
    # The moving averages, on any number of images.
    model = _finished_model(workdir)
    pixels = _evaluated(model)
    inputs = pixels if input == "uint8" else normalize(pixels, "unit").numpy()
    expected = model.predict(normalize(pixels, "unit"), verbose=0)
    again = Case("again", SERVING, [inputs[:5], inputs[5:]], expected)
    assert check_in_runtime(format, str(output), [again])["again"] <= TOLERANCE
    # Which would not tell much of a model that says the same of all images.
    assert np.ptp(expected, axis=0).max() > 10 * TOLERANCE * np.abs(expected).max()


def _check_metadata(format: str, output: Path, input: str) -> None:
    """Checks what the file beside an export says, and the file itself where it can."""
    beside = json.loads(output.with_name("exported.json").read_text())
    expected = {
        "class_names": list("0123456789"),
        "input": input,
        "activation": "softmax",
        "image_size": [8, 8],
        "crop_fraction": 0.875,
        "exif_orientation": False,
        "interpolation": "bicubic",
        "normalization": "unit",
        "mean": [127.5] * 3,
        "std": [127.5] * 3,
    }
    assert expected.items() <= beside.items()
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
        found = session.get_modelmeta().custom_metadata_map
        assert found.keys() == beside.keys()
        for name, value in beside.items():
            assert found[name] == value or json.loads(found[name]) == value
        (images,), (logits,) = session.get_inputs(), session.get_outputs()
        assert images.shape == ["batch", 8, 8, 3] and logits.shape == ["batch", 10]
    elif format == "litert":
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(output.read_bytes()))
        (entry,) = [each for each in model.metadata if each.name == b"metadata.json"]
        assert json.loads(bytes(model.buffers[entry.buffer].data)) == beside


def test_the_preprocessing_of_the_documentation() -> None:
    page = (ROOT / "docs" / "export.md").read_text()
    (code,) = [each for each in page.split("```")[1::2] if "def prepare(" in each]
    names: dict[str, Any] = {}
    exec(code.removeprefix("python"), names)
    random = np.random.default_rng(0)
    for size, shape in itertools.product(((24, 24), (20, 31)), ((57, 40, 3), (9, 25, 3))):
        image = random.integers(0, 256, shape, np.uint8)
        for fraction, interpolation in itertools.product((1.0, 0.875), ("bicubic", "bilinear")):
            found = names["prepare"](image, size, fraction, interpolation)
            config = PreprocessingConfig(
                size, eval_crop_fraction=fraction, interpolation=interpolation
            )
            expected = evaluation_example({"image": tf.constant(image)}, config).numpy()
            assert found.dtype == np.uint8
            assert np.abs(found.astype(int) - expected).max() <= 1


def test_saved_model(command: Export, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = command(f"--workdir={workdir}", "--format=saved_model")
    differences = _differences(capsys.readouterr().out)
    _check_metadata("saved_model", output, "uint8 of any size")
    assert len(differences) == 4 and max(differences.values()) <= TOLERANCE
    model = _finished_model(workdir)
    signatures = tf.saved_model.load(str(output)).signatures
    # The very images of an evaluation, cut and resized by the signature itself.
    pixels = _evaluated(model)
    images = np.stack([digits_source("validation").load(tf.constant(i, tf.int64))["image"]
                       for i in range(len(pixels))])  # fmt: skip
    expected = model.predict(normalize(pixels, "unit"), verbose=0)
    near = {"atol": TOLERANCE * np.abs(expected).max()}
    answers = signatures[SERVING](images=tf.constant(images))["logits"]
    np.testing.assert_allclose(answers, expected, **near)
    answers = signatures[NORMALIZED](images=normalize(pixels, "unit"))["logits"]
    np.testing.assert_allclose(answers, expected, **near)
    large = tf.zeros((2, 30, 50, 3), tf.uint8)
    assert signatures[SERVING](images=large)["logits"].shape == (2, 10)


def _evaluated(model: keras.Model) -> NDArray[np.uint8]:
    """Returns the first images of an evaluation, as bytes of the model's size."""
    preprocessing = PreprocessingConfig(model.input_shape[1:3])
    batches = evaluation_dataset(digits_source("validation"), preprocessing, batch_size=16)
    return next(iter(batches))["image"].numpy()


MODELS: list[dict[str, object]] = [
    {**TINY_MODEL, "name": "vit_ti4_d2_tl2at1_v10_fuser"},
    {**TINY_MODEL, "name": "vit_ti4_d2_tl2at1_v10_fuser_linear", "classifier": "token"},
    {**TINY_MODEL, "name": "vit_ti4_d2_tl2at1_fuser", "classifier": "map"},
    {**TINY_MODEL, "name": "vit_ti2_d2_pool2at1"},
    TRANSFORMER,
    {**TRANSFORMER, "name": "vivit_ti8x2_d2_tl2at1_fuser"},
    CONVOLUTIONS,
]


@pytest.mark.parametrize(
    ("format", "model"),
    # Every model in one format; StableHLO has quick tests; all of them by -m extra.
    [
        pytest.param(
            format,
            model,
            marks=pytest.mark.slow if column % 3 == row else pytest.mark.extra,
            id=f"{format}-{model['name']}",
        )
        for row, format in enumerate(FORMATS)
        for column, model in enumerate(MODELS)
    ],
)
def test_every_kind_of_model(
    command: Export, tmp_path: Path, format: str, model: dict[str, object]
) -> None:
    _needs(format)
    keras.utils.set_random_seed(0)
    fields = {name: value for name, value in model.items() if name != "name"}
    built = tk.create_model(str(model["name"]), num_classes=3, **fields)
    built.set_weights([np.random.normal(each, 0.05) for each in built.get_weights()])
    built.save(tmp_path / "any.keras")
    if len(built.input_shape) == 5:
        set_name = f"records:test@{write_small_set(tmp_path / 'records', multi_label=False)}"
    else:
        set_name = "digits:test"
    arguments = [f"--model={tmp_path / 'any.keras'}", f"--eval_set={set_name}"]
    assert command(*arguments, f"--format={format}").exists()


# -------------------------------------------------------------------------- the check
@pytest.mark.slow
def test_nothing_is_left_of_an_export_that_answers_otherwise(
    command: Export, workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export.write_saved_model

    def write_another(served: export.ServedModel, path: str) -> None:
        kernel = served.model.trainable_variables[0]
        kernel.assign(kernel * 2)
        write(served, path)

    monkeypatch.setattr(export, "write_saved_model", write_another)
    with pytest.raises(ExportError, match="outputs differ from Keras'.*expected at most 1e-04"):
        command(f"--workdir={workdir}", "--format=saved_model")
    assert not list(tmp_path.iterdir())


def test_the_runtime_cannot_import_the_model() -> None:
    script = (
        "import runpy, sys; sys.argv = ['', 'no format', '', '', '']\n"
        f"try: runpy.run_path({runtime_process.__file__!r}, run_name='__main__')\n"
        "except KeyError: pass\n"
        "for name in ('keras', 'tokenlearner_keras', 'trainers'):\n"
        "    try: __import__(name)\n"
        "    except ImportError: continue\n"
        "    sys.exit(name)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(export.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_relative_differences() -> None:
    expected = np.array([[1.0, -4.0], [0.0, 0.0]])
    assert relative_difference(expected, expected) == 0
    assert relative_difference(expected + [[0.5, 0.0], [0, 0]], expected) == 0.125
    assert relative_difference(expected + [[0, 0], [0, 1e-9]], expected) > 1
    assert relative_difference(expected[:1], expected) == np.inf
    check_differences({"a": TOLERANCE, "b": 0.0})
    for wrong in (2 * TOLERANCE, np.inf, relative_difference(expected * np.nan, expected)):
        with pytest.raises(ExportError, match="batch 7"):
            check_differences({"batch 1": 0.0, "batch 7": wrong})


def test_in_float32(workdir: Path) -> None:
    trained = keras.saving.load_model(workdir / "model.keras", compile=False)
    copy = in_float32(trained)
    assert "mixed_bfloat16" in _policies(trained) and _policies(copy) == {"float32"}
    for left, right in zip(copy.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert in_float32(copy) is copy


def _policies(model: keras.Model) -> set[str]:
    return {layer.dtype_policy.name for layer in model._flatten_layers()}


# ----------------------------------------------------------------------- wrong usage
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format=onnx"], "one of --workdir=DIR and --model"),
        (["--workdir=a", "--model=b.keras"], "Received both"),
        (["--workdir=a", "--stride=3"], "--stride goes with --model"),
        (["--workdir=a"], "saved_model|onnx|litert|stablehlo"),
        (["--workdir=a", "--format=saved_model", "--input=uint8"], "has both"),
        (["--model=b.keras", "--format=saved_model"], "--eval_set"),
        (["--workdir=a", "--format=saved_model", "--output="], "Received none"),
        (["--workdir=a", "--format=saved_model", "--output=."], "is there already"),
        (["--workdir=a", "--format=saved_model", "--output=gs://a/b"], "local disk"),
        (["--workdir=nowhere", "--format=saved_model"], "no config.json"),
    ],
)
def test_wrong_usage(command: Export, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        command(*arguments)


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "saved_model"])
def test_a_missing_package(command: Export, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    nothing = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(formats, "importlib", nothing)
    with pytest.raises(ConfigurationError, match=r"Not installed: .*'\.\[export\]' in a clone"):
        command("--workdir=a", f"--format={format}")


@pytest.mark.slow
def test_the_help_has_all_flags() -> None:
    command = [sys.executable, "-m", "trainers.export", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    values = flags.FlagValues()
    export.define_flags(values)
    missing = [each for each in values if f"--{each}:" not in shown.replace("[no]", "")]
    assert not missing


def test_onnx_of_the_exact_gelu(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    x = np.linspace(-6, 6, 25, dtype=np.float32)[:, None]
    path = str(tmp_path / "gelu.onnx")
    served = SimpleNamespace(model=SimpleNamespace(name="gelu"))
    gelu = keras.layers.Activation(lambda x: keras.activations.gelu(x, approximate=False))
    formats.write_onnx(served, gelu, tf.TensorSpec((None, 1), tf.float32), path, {})
    session = runtime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(gelu(x)), atol=1e-6)

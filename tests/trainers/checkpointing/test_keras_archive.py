"""`.keras` files that are made to do harm are refused before anything of them is used."""

import json
import resource
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks.reliability.hostile_models import HOSTILE
from benchmarks.reliability.hostile_models import write_good
from benchmarks.reliability.hostile_models import write_hostile
from tests.helpers.small_models import small_model
from trainers.checkpointing.init_from import initialize
from trainers.checkpointing.keras_archive import load_keras_archive
from trainers.inference.keras_file import InputSettings
from trainers.inference.keras_file import load_keras_file
from trainers.utils.errors import ConfigurationError


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is as it should be."""
    path = tmp_path_factory.mktemp("good") / "model.keras"
    write_good(path)
    return path


def test_a_good_file_is_loaded(good: Path) -> None:
    model = load_keras_archive(str(good))
    expected = keras.saving.load_model(good)
    for left, right in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_file_is_loaded(mode: str, tmp_path: Path) -> None:
    model = small_model("vit_ti8_d2_tl4at1")
    model.quantize(mode)
    model.save(tmp_path / "model.keras")
    loaded = load_keras_archive(str(tmp_path / "model.keras"))
    for left, right in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(good: Path, tmp_path: Path, name: str) -> None:
    path, marker = tmp_path / "model.keras", tmp_path / "marker"
    write_hostile(good, path, name, marker)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigurationError, match=r"model\.keras") as refusal:
        load_keras_file(str(path), InputSettings())
    assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigurationError, match=r"init_from=.*model\.keras"):
        initialize(load_keras_archive(str(good)), str(path))
    assert not marker.exists()
    # In KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


_READS_FILES = {"module": "keras.utils", "class_name": "model_to_dot", "config": {}}


@pytest.mark.parametrize(
    "activation",
    [
        _READS_FILES,
        {"module": "keras.utils", "class_name": "function", "config": "plot_model"},
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": _READS_FILES}},
        {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None}},
    ],
)
def test_functions_of_keras_that_are_no_layers_are_refused(
    good: Path, tmp_path: Path, activation: dict[str, object]
) -> None:
    _rewrite(good, tmp_path / "model.keras", '"activation": "relu"', activation)
    with pytest.raises(ValueError, match="it asks for|Python code"):
        load_keras_archive(str(tmp_path / "model.keras"))


def test_how_a_model_was_compiled_is_never_read(good: Path, tmp_path: Path) -> None:
    model = keras.saving.load_model(good)
    model.compile("sgd", "mse")
    model.save(tmp_path / "compiled.keras")
    path = tmp_path / "model.keras"
    hostile = {"module": "os", "class_name": "system", "config": {}}
    _rewrite(tmp_path / "compiled.keras", path, '"loss": "mse"', hostile)
    assert not load_keras_archive(str(path)).compiled


def _rewrite(good: Path, path: Path, text: str, value: object) -> None:
    """Writes a file with another value for a key of its configuration."""
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(path, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                assert text.encode() in content
                key = text.partition(":")[0]
                content = content.replace(text.encode(), f"{key}: {json.dumps(value)}".encode())
            changed.writestr(name, content)

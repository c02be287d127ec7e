"""`.keras` files that are made to do harm are refused before anything of them is used."""

import resource
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks.reliability.hostile_models import HOSTILE
from benchmarks.reliability.hostile_models import write_good
from benchmarks.reliability.hostile_models import write_hostile
from trainers.errors import ConfigurationError
from trainers.initialization import initialize
from trainers.keras_archive import load_keras_archive
from trainers.keras_file import InputSettings
from trainers.keras_file import load_keras_file


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

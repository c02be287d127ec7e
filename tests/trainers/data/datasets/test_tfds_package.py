"""TFDS that is missing or does not load is explained."""

import sys
import types

import pytest

from trainers.data.datasets.tfds import import_tfds
from trainers.utils.errors import ConfigurationError


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ConfigurationError, match="pip install tensorflow-datasets"):
        import_tfds()


def test_a_package_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    # It logs the error of one of its parts, and its own import succeeds.
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", types.ModuleType("empty"))
    with pytest.raises(ConfigurationError, match="does not load.*tensorflow-metadata==1.17.3"):
        import_tfds()

"""The package tensorflow-datasets, or a message that says how to get it to work."""

import importlib
from typing import Any

from trainers.utils.errors import ConfigurationError


def import_tfds() -> Any:
    """Returns the module `tensorflow_datasets`.

    Raises:
        ConfigurationError: If it is not installed, or does not load: it only logs why, and
            is left without its contents.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ConfigurationError(
            "data.source=tfds:… needs the package tensorflow-datasets, which could "
            f"not be imported ({error}). Install it with: "
            "pip install tensorflow-datasets importlib_resources"
        ) from error
    if not hasattr(tfds, "core"):
        raise ConfigurationError(
            f"The package tensorflow-datasets is installed, but does not load: {_reason()}. "
            "TensorFlow before 2.20 needs an older part of it: "
            "pip install tensorflow-metadata==1.17.3"
        )
    return tfds


def _reason() -> str:
    try:
        importlib.import_module("tensorflow_datasets.public_api")
    except Exception as error:  # whatever a package raises while it loads
        return str(error).partition(". ")[0].rstrip(".")
    return "see the log above"

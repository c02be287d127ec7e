"""Starts a training from the weights of another model, `init_from`."""

import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import keras

from tokenlearner_keras import LoadReport
from tokenlearner_keras import load_npz
from tokenlearner_keras.weights.transfer import transfer_weights
from trainers.checkpointing.keras_archive import load_keras_archive
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import one_line

# What reading a damaged archive, or one of another model, raises.
_UNREADABLE = (
    ValueError,
    OSError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def check_init_from(path: str | None) -> None:
    """Checks, without reading it, that `init_from` is something to start from.

    Args:
        path: A work directory, a `.keras` file or a public ViT's `.npz`; None is fine.

    Raises:
        ConfigurationError: If it is none of these.
    """
    if path is not None:
        _weights_file(path)


def initialize(model: keras.Model, path: str) -> LoadReport:
    """Copies the weights of another model, as far as both models have them.

    Positions are resized to the model's grid, and a head for other classes stays fresh. The weights
    of an image model start a video model: positions repeated over time, the patch kernel inflated
    to tubelets. A work directory stands for its finished model, which holds the averaged weights if
    there are any.

    Args:
        model: The model; unchanged if an error is raised.
        path: As for `check_init_from`.

    Returns:
        What became of each parameter.

    Raises:
        ConfigurationError: If the file is missing or damaged, or is of another model.
    """
    file = _weights_file(path)
    load = load_npz if file.endswith(".npz") else _load_keras
    try:
        if not files.is_remote(file):
            return load(model, file)
        with tempfile.TemporaryDirectory() as folder:
            # Keras and NumPy read only local files.
            local = Path(folder) / file.rpartition("/")[2]
            local.write_bytes(files.read(file))
            return load(model, str(local))
    except _UNREADABLE as error:
        reason = one_line(error)  # it may list parameters, one per line
        raise ConfigurationError(f"init_from={path}: {reason}") from error


def _weights_file(path: str) -> str:
    """Returns the file that `init_from` stands for."""
    path = os.path.expanduser(path)
    if files.is_directory(path):
        file = files.join(path, "model.keras")
        if files.exists(file):
            return file
        raise ConfigurationError(
            f"init_from={path} has no model.keras: expected the work directory of a finished "
            "training. Let it finish, or give a .keras file."
        )
    if not path.endswith((".keras", ".npz")):
        raise ConfigurationError(
            "init_from: expected a work directory, a .keras file or a .npz of a public Vision "
            f"Transformer. Received {path!r}."
        )
    if not files.exists(path):
        raise ConfigurationError(f"init_from={path}: there is no such file.")
    return path


def _load_keras(model: keras.Model, path: str) -> LoadReport:
    """Copies the weights of a saved model by name."""
    return transfer_weights(model, load_keras_archive(path))

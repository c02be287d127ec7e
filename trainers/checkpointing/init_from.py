"""Starts a training from the weights of another model, `init_from`."""

import os
import tempfile
from pathlib import Path

import keras

from tokenlearner_keras import LoadReport
from tokenlearner_keras import load_npz
from tokenlearner_keras.weights.transfer import transfer_weights
from trainers.checkpointing.keras_archive import load_keras_archive
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import one_line


def check_init_from(path: str | None) -> None:
    """Raises a ConfigurationError, without reading it, if `init_from` is nothing to start from.

    None is fine; else it is a work directory, a `.keras` file or a public ViT's `.npz`.
    """
    if path is not None:
        _weights_file(path)


def initialize(model: keras.Model, path: str) -> LoadReport:
    """Copies the weights of another model, as far as both have them; returns what became of each.

    Positions are resized to the model's grid, and a head for other classes stays fresh. The weights
    of an image model start a video model: positions repeated over time, the patch kernel inflated
    to tubelets. A work directory stands for its finished model, which holds the averaged weights if
    there are any.

    Raises:
        ConfigurationError: If the file is missing or damaged, or is of another model; the model is
            unchanged then.
    """
    file = _weights_file(path)
    try:
        if not files.is_remote(file):
            return _load(model, file)
        with tempfile.TemporaryDirectory() as folder:
            # Keras and NumPy read only local files.
            local = Path(folder) / file.rpartition("/")[2]
            local.write_bytes(files.read(file))
            return _load(model, str(local))
    # A damaged archive, or a layer of another package, may raise anything.
    except Exception as error:
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


def _load(model: keras.Model, path: str) -> LoadReport:
    if path.endswith(".npz"):
        return load_npz(model, path)
    return transfer_weights(model, load_keras_archive(path))

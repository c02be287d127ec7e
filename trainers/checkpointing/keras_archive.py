"""Loads untrusted `.keras` files: Keras' safe mode, plus allowed classes and bounded sizes."""

import contextlib
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import keras

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
# A file may ask for this much whatever its size, and for more only if it holds as much.
_FREE_BYTES = 64 * 2**20
# Trained weights hardly compress; a file of this ratio may still hold zeros only.
_MAX_COMPRESSION = 100
# Not all of Keras: some of its functions read and write files.
_PARTS = "layers|models|src|initializers|regularizers|constraints|activations|dtype_policies"
_MODULES = re.compile(
    rf"builtins|keras|keras\.({_PARTS}|quantizers|random)(\..*)?|tokenlearner_keras(\..*)?"
)


def load_keras_archive(path: str) -> keras.Model:
    """Returns the model of a local `.keras` file, as `load_model(path, compile=False)` does.

    Raises:
        ValueError: If the file is damaged, holds code or classes of other packages than Keras and
            tokenlearner_keras, or asks for far more memory than its size.
        Exception: Whatever Keras raises for a model that it cannot build.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = _check_archive(archive, Path(path).stat().st_size)
    except zipfile.BadZipFile as error:
        raise ValueError("it is not a .keras file, or it is truncated") from error
    with _bounded_and_uncompiled(max(_FREE_BYTES // 4, size)):
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def _check_archive(archive: zipfile.ZipFile, file_bytes: int) -> int:
    """Returns the size of the weights in bytes; refuses a hostile archive."""
    infos = {info.filename: info for info in archive.infolist()}
    for name in (_CONFIG, _WEIGHTS):
        if name not in infos:
            raise ValueError(f"it is not a .keras file: it has no {name}")
    for name in infos:
        if name.startswith(("/", "\\")) or ".." in Path(name).parts:
            raise ValueError(f"it contains {name!r}, which points outside of the file")
    declared = sum(info.file_size for info in infos.values())
    if declared > max(_FREE_BYTES, _MAX_COMPRESSION * file_bytes):
        raise ValueError(f"it declares {declared} bytes in a file of {file_bytes}")
    try:
        _check_classes(json.loads(archive.read(_CONFIG)))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"its {_CONFIG} is not JSON; download or save the file again") from error
    size = infos[_WEIGHTS].file_size

    def check_dataset(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.nbytes > max(_FREE_BYTES, size):
            raise ValueError(f"its weights {name!r} declare {item.nbytes} bytes, it holds {size}")

    with h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file:
        file.visititems(check_dataset)
    return size


def _check_classes(value: Any) -> None:
    """Refuses a configuration with anything but layers of Keras and of this project."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name, module = value.get("class_name"), value.get("module")
            if name in ("Lambda", "__lambda__"):
                raise ValueError("it contains Python code (a Lambda layer). Save it without one")
            if module is not None and not _MODULES.fullmatch(str(module)):
                raise ValueError(
                    f"it asks for {name!r} of the module {module!r}. Expected layers of Keras and "
                    "of tokenlearner_keras"
                )
            # The compile configuration is never read, so its names do not matter.
            waiting += [each for key, each in value.items() if key != "compile_config"]
        elif isinstance(value, list):
            waiting += value


@contextlib.contextmanager
def _bounded_and_uncompiled(limit: int) -> Iterator[None]:
    """Refuses variables of more than `limit` elements together, and compiles no inner model."""
    elements = 0
    initialize = keras.Variable.__init__

    def initialize_bounded(
        self: keras.Variable, initializer: Any, shape: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        nonlocal elements
        elements += math.prod(shape or ())
        if elements > limit:
            raise ValueError("it describes a model far larger than its weights")
        initialize(self, initializer, shape, *args, **kwargs)

    with (
        mock.patch.object(keras.Variable, "__init__", initialize_bounded),
        # `compile=False` applies to the outermost model only.
        mock.patch.object(keras.Model, "compile_from_config", lambda self, config: None),
    ):
        yield

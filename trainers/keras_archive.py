"""Loads models of `.keras` files from elsewhere: nothing of them runs, and sizes are checked first.

Keras' own safe mode refuses code in a file. Here the archive is looked at before Keras opens it:
its names and sizes, the classes that its configuration asks for, what its weights point to, and
whether the model that it describes is as large as its weights.
"""

import io
import json
import math
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from tokenlearner_keras.models.without_weights import without_weights

#: Bytes of the members together; the largest public ViT takes 2.6 GB.
MAX_BYTES = 32 * 2**30
_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_MAX_CONFIG_BYTES = 64 * 2**20
# Trained weights hardly compress; a file of this size may still hold zeros only.
_MAX_COMPRESSION = 100
_ALWAYS_ALLOWED_BYTES = 64 * 2**20
_PACKAGES = ("keras", "tokenlearner_keras", "builtins")
# Of Keras, but made of code, a pickle or another file.
_CARRIERS = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


def load_keras_archive(path: str) -> keras.Model:
    """Returns the model of a local `.keras` file, not compiled.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no such file, damaged, or made to do anything but hold a model of
            Keras' and tokenlearner_keras' own layers; the message says what it holds.
        Exception: Whatever Keras raises for a model that it cannot build.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no .keras file, or only a part of one")
    with zipfile.ZipFile(path) as archive:
        check_members(archive, Path(path).stat().st_size)
        config = _read_config(archive)
        check_classes(config)
        elements = _check_weights(archive)
    _check_size(config, elements)
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _read_config(archive: zipfile.ZipFile) -> Any:
    try:
        return json.loads(archive.read(_CONFIG))
    except ValueError as error:
        raise ValueError(f"its {_CONFIG} is no JSON; take the file from its maker again") from error


def check_members(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Checks what the archive's directory declares, before a member is read.

    Args:
        archive: The archive.
        file_bytes: The size of its file.

    Raises:
        ValueError: If it is not what Keras writes.
    """
    infos = archive.infolist()
    names = [info.filename for info in infos]
    missing = {_CONFIG, _WEIGHTS} - set(names)
    if missing:
        raise ValueError(f"it is no .keras file: it holds no {' and no '.join(sorted(missing))}")
    for info in infos:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"it holds a link, {info.filename!r}, which no .keras file does")
        if info.filename.startswith(("/", "\\")) or ".." in Path(info.filename).parts:
            raise ValueError(f"it holds {info.filename!r}, which lies outside of it")
    if len(set(names)) < len(names):
        raise ValueError("it holds two members of one name")
    total = sum(info.file_size for info in infos)
    most = min(MAX_BYTES, max(_ALWAYS_ALLOWED_BYTES, _MAX_COMPRESSION * file_bytes))
    if total > most or archive.getinfo(_CONFIG).file_size > _MAX_CONFIG_BYTES:
        raise ValueError(
            f"it declares {total} bytes in a file of {file_bytes}, more than any model: it is "
            "damaged or made to exhaust memory"
        )


def check_classes(config: Any) -> None:
    """Checks that a configuration asks for known classes only.

    Args:
        config: Of a model, as JSON holds it.

    Raises:
        ValueError: If a class is of another package, or is made of code or of another file.
    """
    for each in _objects(config):
        name, module = each.get("class_name"), each.get("module")
        if name in _CARRIERS:
            raise ValueError(
                f"it holds a {name}, which is made of code or of another file. Models without "
                "one can be loaded"
            )
        if module is not None and str(module).partition(".")[0] not in _PACKAGES:
            raise ValueError(
                f"it asks for {name!r} of the module {module!r}. Models of Keras' and "
                "tokenlearner_keras' own layers can be loaded"
            )
        label = each.get("name")
        if isinstance(label, str) and (".." in label.split("/") or label.startswith("/")):
            raise ValueError(f"it holds a layer of the name {label!r}, which is a path")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yields all dictionaries, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_weights(archive: zipfile.ZipFile) -> int:
    """Returns the number of elements of all weights.

    Raises:
        ValueError: If the weights are elsewhere, or declare more than the file can hold.
    """
    payload = archive.read(_WEIGHTS)  # its size is checked
    elements = 0
    with h5py.File(io.BytesIO(payload), "r") as file:
        for name, dataset in _datasets(file):
            if dataset.is_virtual or dataset.external:
                raise ValueError(f"its weights {name!r} are taken from another file")
            declared = math.prod(dataset.shape) * dataset.dtype.itemsize
            if declared > max(_ALWAYS_ALLOWED_BYTES, _MAX_COMPRESSION * len(payload)):
                raise ValueError(
                    f"its weights {name!r} declare {declared} bytes in a file of {len(payload)}: "
                    "it is damaged or made to exhaust memory"
                )
            elements += math.prod(dataset.shape)
    return elements


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields all datasets of a file, following hard links only, each group once.

    Raises:
        ValueError: If there is another kind of link.
    """
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    seen = {h5py.h5o.get_info(file.id).addr}
    while waiting:
        path, group = waiting.pop()
        for name in group:
            where = f"{path}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"its weights {where!r} are a link to somewhere else")
            found = group[name]
            if isinstance(found, h5py.Dataset):
                yield where, found
            elif (address := h5py.h5o.get_info(found.id).addr) not in seen:
                seen.add(address)
                waiting.append((where, found))


def _check_size(config: Any, elements: int) -> None:
    """Checks that the model is not larger than its weights, without building any.

    Raises:
        ValueError: If it is.
    """
    with without_weights():
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        count = model.count_params() if isinstance(model, keras.Model) and model.built else 0
    if count > elements:
        raise ValueError(
            f"it describes a model of {count} weights and holds {elements}: it is damaged or made "
            "to exhaust memory"
        )

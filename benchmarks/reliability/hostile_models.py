"""`.keras` files that are made to do harm, each from a good one."""

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

Members = dict[str, bytes]
#: From the members of a good file and a path that must not come into being to other members.
Change = Callable[[Members, Path], Members]

_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_HUGE = 10**11
_OS_SYSTEM = {
    "module": "os", "class_name": "function", "config": "system", "registered_name": "system",
}  # fmt: skip
_WEB_PAGE = b"<!doctype html><title>Sign in</title>"


def write_good(path: Path) -> None:
    inputs = keras.Input((8, 8, 3), name="images")
    x = keras.layers.Flatten(name="flat")(inputs)
    x = keras.layers.Dense(4, name="hidden", activation="relu")(x)
    keras.Model(inputs, keras.layers.Dense(3, name="head")(x)).save(path)


def write_hostile(good: Path, path: Path, name: str, marker: Path) -> None:
    """Writes one of `HOSTILE` from the file of `write_good`; code in it would write the marker."""
    with zipfile.ZipFile(good) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    payload = HOSTILE[name](members, marker)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in payload.items():
            info = zipfile.ZipInfo(each)
            info.compress_type = zipfile.ZIP_DEFLATED
            if content.startswith(_LINK):
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                content = content.removeprefix(_LINK)
            archive.writestr(info, content)


_LINK = b"link to "


def _with_layer(members: Members, layer: dict[str, Any], name: str = "hidden") -> Members:
    config = json.loads(members[_CONFIG])
    for each in config["config"]["layers"]:
        if each["name"] == name:
            layer = {"name": name, "inbound_nodes": each["inbound_nodes"], **layer}
            each.clear()
            each.update(layer)
    return {**members, _CONFIG: json.dumps(config).encode()}


def _lambda(members: Members, marker: Path) -> Members:
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    made = keras.layers.Lambda(eval(f"lambda x: (x, {code})[0]"), output_shape=(4,))
    layer = keras.saving.serialize_keras_object(made)
    layer["config"]["name"] = "hidden"
    return _with_layer(members, layer)


def _other_layer(
    module: str, class_name: str, config: Callable[[str], dict[str, Any]], name: str = "hidden"
) -> Change:
    def apply(members: Members, marker: Path) -> Members:
        layer = {"module": module, "class_name": class_name, "config": config(str(marker))}
        return _with_layer(members, layer, name)

    return apply


def _path_as_name(members: Members, marker: Path) -> Members:
    text = members[_CONFIG].decode().replace('"hidden"', json.dumps(f"../../../{marker}"))
    return {**members, _CONFIG: text.encode()}


def _other_weights(name: str, put: Callable[[h5py.File, str, Path], None]) -> Change:
    """Puts something else into the place of a variable of the first dense layer."""

    def apply(members: Members, marker: Path) -> Members:
        place = f"layers/dense/vars/{name}"
        buffer = io.BytesIO(members[_WEIGHTS])
        with h5py.File(buffer, "r+") as file:
            del file[place]
            put(file, place, marker)
        return {**members, _WEIGHTS: buffer.getvalue()}

    return apply


def _external_link(file: h5py.File, place: str, marker: Path) -> None:
    file[place] = h5py.ExternalLink(str(marker), "/secret")


def _soft_link(file: h5py.File, place: str, marker: Path) -> None:
    file[place] = h5py.SoftLink("/layers/dense_1/vars/0")


def _external_storage(file: h5py.File, place: str, marker: Path) -> None:
    file.create_dataset(place, (4,), "float32", external=[("/etc/hostname", 0, 16)])


def _virtual(file: h5py.File, place: str, marker: Path) -> None:
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource(str(marker), "secret", (4,))
    file.create_virtual_dataset(place, layout)


def _huge_weights(file: h5py.File, place: str, marker: Path) -> None:
    file.create_dataset(place, (192, _HUGE), "float32", chunks=(1, 1024))


def _pickled_config(members: Members, marker: Path) -> Members:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    return {**members, _CONFIG: buffer.getvalue()}


HOSTILE: dict[str, Change] = {
    "a Lambda layer": _lambda,
    "an activation that is os.system": _other_layer(
        "keras.layers", "Dense", lambda marker: {"units": 4, "activation": _OS_SYSTEM}
    ),
    "a layer that is subprocess.Popen": _other_layer(
        "subprocess", "Popen", lambda marker: {"args": ["touch", marker]}
    ),
    "a layer that loads a SavedModel": _other_layer(
        "keras.layers", "TFSMLayer", lambda marker: {"filepath": marker, "name": "hidden"}
    ),
    "a layer that unpickles": _other_layer(
        "keras.layers", "TorchModuleWrapper", lambda marker: {"module": "gASV", "name": marker}
    ),
    "a layer whose name is a path": _path_as_name,
    "a layer of 100 billion units": _other_layer(
        "keras.layers",
        "Dense",
        lambda marker: {"units": _HUGE, "name": "head", "dtype": "float32"},
        name="head",
    ),
    "weights by an external link": _other_weights("0", _external_link),
    "weights by a soft link": _other_weights("0", _soft_link),
    "weights in external storage": _other_weights("1", _external_storage),
    "weights of a virtual dataset": _other_weights("1", _virtual),
    "weights that declare 77 TB": _other_weights("0", _huge_weights),
    "weights of 1 GiB of zeros, compressed": lambda m, p: {**m, _WEIGHTS: bytes(2**30)},
    "a member that lies outside": lambda m, p: {**m, f"../../..{p}": b"x"},
    "a member with an absolute path": lambda m, p: {**m, str(p): b"x"},
    "weights that are a symbolic link": lambda m, p: {**m, _WEIGHTS: _LINK + str(p).encode()},
    "a web page as the configuration": lambda m, p: {**m, _CONFIG: _WEB_PAGE},
    "a pickle as the configuration": _pickled_config,
    "no weights": lambda m, p: {_CONFIG: m[_CONFIG]},
}

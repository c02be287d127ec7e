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


def write_good(path: Path) -> None:
    """Writes a small model of Keras' own layers."""
    inputs = keras.Input((8, 8, 3), name="images")
    x = keras.layers.Flatten(name="flat")(inputs)
    x = keras.layers.Dense(4, name="hidden", activation="relu")(x)
    keras.Model(inputs, keras.layers.Dense(3, name="head")(x)).save(path)


def write_hostile(good: Path, path: Path, name: str, marker: Path) -> None:
    """Writes one of `HOSTILE`.

    Args:
        good: From `write_good`.
        path: The file to write.
        name: Which.
        marker: What code in it would write.
    """
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
    """Puts another layer into the place of one."""
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


def _system(members: Members, marker: Path) -> Members:
    del marker
    function = {"module": "os", "class_name": "function", "config": "system"}
    return _with_layer(
        members,
        {
            "module": "keras.layers",
            "class_name": "Dense",
            "config": {"units": 4, "activation": {**function, "registered_name": "system"}},
        },
    )


def _other_class(members: Members, marker: Path) -> Members:
    arguments = {"args": ["touch", str(marker)]}
    return _with_layer(
        members, {"module": "subprocess", "class_name": "Popen", "config": arguments}
    )


def _saved_model_layer(members: Members, marker: Path) -> Members:
    config = {"filepath": str(marker), "name": "hidden"}
    return _with_layer(
        members, {"module": "keras.layers", "class_name": "TFSMLayer", "config": config}
    )


def _torch_layer(members: Members, marker: Path) -> Members:
    config = {"module": "gASV", "name": str(marker)}
    return _with_layer(
        members, {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": config}
    )


def _path_as_name(members: Members, marker: Path) -> Members:
    text = members[_CONFIG].decode().replace('"hidden"', json.dumps(f"../../../{marker}"))
    return {**members, _CONFIG: text.encode()}


def _huge_model(members: Members, marker: Path) -> Members:
    del marker
    config = {"units": _HUGE, "name": "head", "dtype": "float32"}
    layer = {"module": "keras.layers", "class_name": "Dense", "config": config}
    return _with_layer(members, layer, "head")


def _with_weights(change: Callable[[h5py.File, Path], None]) -> Change:
    def apply(members: Members, marker: Path) -> Members:
        buffer = io.BytesIO(members[_WEIGHTS])
        with h5py.File(buffer, "r+") as file:
            change(file, marker)
        return {**members, _WEIGHTS: buffer.getvalue()}

    return apply


_VARIABLES = "layers/dense/vars"


def _external_link(file: h5py.File, marker: Path) -> None:
    del file[f"{_VARIABLES}/0"]
    file[f"{_VARIABLES}/0"] = h5py.ExternalLink(str(marker), "/secret")


def _soft_link(file: h5py.File, marker: Path) -> None:
    del marker, file[f"{_VARIABLES}/0"]
    file[f"{_VARIABLES}/0"] = h5py.SoftLink("/layers/dense_1/vars/0")


def _external_storage(file: h5py.File, marker: Path) -> None:
    del file[f"{_VARIABLES}/1"]
    external = [("/etc/hostname", 0, 16)]
    file.create_dataset(f"{_VARIABLES}/1", (4,), "float32", external=external)


def _virtual(file: h5py.File, marker: Path) -> None:
    del file[f"{_VARIABLES}/1"]
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource(str(marker), "secret", (4,))
    file.create_virtual_dataset(f"{_VARIABLES}/1", layout)


def _huge_weights(file: h5py.File, marker: Path) -> None:
    del marker, file[f"{_VARIABLES}/0"]
    file.create_dataset(f"{_VARIABLES}/0", (192, _HUGE), "float32", chunks=(1, 1024))


def _bomb(members: Members, marker: Path) -> Members:
    del marker
    return {**members, _WEIGHTS: bytes(2**30)}


def _web_page(members: Members, marker: Path) -> Members:
    del marker
    return {**members, _CONFIG: b"<!doctype html><title>Sign in</title>"}


def _no_weights(members: Members, marker: Path) -> Members:
    del marker
    return {_CONFIG: members[_CONFIG]}


def _pickled_config(members: Members, marker: Path) -> Members:
    del marker
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    return {**members, _CONFIG: buffer.getvalue()}


HOSTILE: dict[str, Change] = {
    "a Lambda layer": _lambda,
    "an activation that is os.system": _system,
    "a layer that is subprocess.Popen": _other_class,
    "a layer that loads a SavedModel": _saved_model_layer,
    "a layer that unpickles": _torch_layer,
    "a layer whose name is a path": _path_as_name,
    "a layer of 100 billion units": _huge_model,
    "weights by an external link": _with_weights(_external_link),
    "weights by a soft link": _with_weights(_soft_link),
    "weights in external storage": _with_weights(_external_storage),
    "weights of a virtual dataset": _with_weights(_virtual),
    "weights that declare 77 TB": _with_weights(_huge_weights),
    "weights of 1 GiB of zeros, compressed": _bomb,
    "a member that lies outside": lambda m, p: {**m, f"../../..{p}": b"x"},
    "a member with an absolute path": lambda m, p: {**m, str(p): b"x"},
    "weights that are a symbolic link": lambda m, p: {**m, _WEIGHTS: _LINK + str(p).encode()},
    "a web page as the configuration": _web_page,
    "a pickle as the configuration": _pickled_config,
    "no weights": _no_weights,
}

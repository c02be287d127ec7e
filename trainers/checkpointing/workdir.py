"""Reads and writes the configuration, the data split and the final model of a work directory."""

import contextlib
import json
import os
import reprlib
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from tokenlearner_keras.models.names import config_class
from trainers.configuration.configuration import base_config
from trainers.configuration.configuration import whole_config
from trainers.configuration.schedule import NAMES as DURATION_NAMES
from trainers.configuration.schedule import UNITS as DURATION_UNITS
from trainers.data.sources import SPLITS
from trainers.data.sources import Source
from trainers.engines.engine import make_whole
from trainers.utils import files
from trainers.utils.errors import ConfigurationError

_CONFIG_FILE = "config.json"
# There only if the training's folder has no split folders. It maps "CLASS/FILE" to the split, as
# decided when the training first started.
_SPLIT_FILE = "split.json"
_CONFIG_HINT = "Remove it and run the training command again: it writes a new one."
# What may differ when a run resumes: how long, how often, what is only printed.
_FREE = {
    *(f"{name}_{unit}" for name in DURATION_NAMES for unit in DURATION_UNITS),
    "steps_per_loop",
    "keep_checkpoints",
    "keep_best_metric",
    "topology",
    "data.data_dir",
    "data.eval_sets",
    # Whatever the limit, the same examples replace unreadable ones.
    "data.max_bad_examples",
    "demo.expected_accuracy",
    # Changes neither weights nor random numbers.
    "model.remat",
    "model.attention",
    "resolved_model.remat",
    "resolved_model.attention",
    # Known only when the data are open; check_same_data compares them then.
    "resolved_model.num_classes",
    "resolved_data.num_examples",
    "resolved_data.class_names",
}


def check_workdir(path: str | None, config: ConfigDict, model: ModelConfig) -> None:
    """Checks, without writing, that a work directory can take this configuration.

    Raises:
        ConfigurationError: If no path is given, it is a file or on an unknown file system, or it
            holds a run of another configuration; the keys that differ are named.
    """
    if not path:
        raise ConfigurationError(
            "Expected --workdir=DIR, where checkpoints and metrics go. Received none."
        )
    try:
        is_file = files.exists(path) and not files.is_directory(path)
    except OSError as error:
        raise ConfigurationError(
            f"--workdir={path} cannot be read: {error}. Give a local directory, or one on a "
            "file system that TensorFlow knows and may read, such as gs://BUCKET/DIR."
        ) from error
    if is_file:
        raise ConfigurationError(f"--workdir={path} is a file. Choose a directory.")
    if not files.is_remote(path):
        _check_writable(path)
    _check_same_run(path, config, model)


def check_same_data(workdir: str, source: Source) -> None:
    """Checks that the run of a work directory, if any, was trained on these data so far.

    The number of examples, which determines their order, and the classes are known only once the
    data are open. Raises a ConfigurationError if one of them differs.
    """
    if not _has_run(workdir):
        return
    before = _read_json(workdir).get("resolved_data")
    if not before:
        return  # written by an earlier release
    for name, now in _data_facts(source).items():
        if before.get(name) != now:
            raise ConfigurationError(
                f"{workdir} holds a run on other data ({name}: {reprlib.repr(before.get(name))} "
                f"there, {reprlib.repr(now)} here). Use a new --workdir, or the same data to "
                "resume."
            )


def prepare_workdir(path: str, config: ConfigDict, model: ModelConfig, source: Source) -> None:
    """Writes the configuration, and how files were split, into the work directory.

    A work directory that has a configuration keeps its list of files, or none.

    Raises:
        ConfigurationError: If it cannot be written.
    """
    try:
        splits = getattr(source, "file_splits", {})
        # Before the configuration: without one, a killed start does not count as a run.
        if splits and not files.exists(files.join(path, _SPLIT_FILE)):
            listed = json.dumps(dict(splits), indent=0, sort_keys=True, ensure_ascii=False)
            files.write_atomically(files.join(path, _SPLIT_FILE), f"{listed}\n".encode())
        values = {**_resolved(config, model), "resolved_data": _data_facts(source)}
        payload = (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
        files.write_atomically(files.join(path, _CONFIG_FILE), payload)
    except OSError as error:
        raise ConfigurationError(
            f"The work directory {path!r} cannot be written: {error.strerror or error}. "
            "Choose another --workdir."
        ) from error


def read_configuration(path: str | None) -> tuple[ConfigDict, ModelConfig]:
    """Returns the configuration of the run in a work directory, and that of its model.

    Raises:
        ConfigurationError: If there is no run, or its `config.json` is damaged.
    """
    if not path:
        raise ConfigurationError("Expected --workdir=DIR of a training. Received none.")
    if not _has_run(path):
        raise ConfigurationError(
            f"Expected --workdir=DIR of a training. Received {path!r}, where there is no "
            "config.json. Train first: python -m trainers.train --config=FILE --workdir=DIR"
        )
    values = _read_json(path)
    with _explain_damage(files.join(path, _CONFIG_FILE), _CONFIG_HINT):
        values.pop("resolved_data", None)
        kind = config_class(values["model"]["name"])
        model = kind.from_dict(values.pop("resolved_model"))
        return whole_config(ConfigDict(values)), model


def read_class_names(path: str) -> tuple[str, ...] | None:
    """Returns the classes that the run in a work directory was trained on, in order.

    None for a run of an earlier release, which did not store them.
    """
    facts = _read_json(path).get("resolved_data")
    return tuple(facts["class_names"]) if facts else None


def read_file_splits(path: str) -> Mapping[str, str] | None:
    """Returns the split of each file of the training's folder, by "CLASS/FILE".

    None if there is no run, so that the first start decides; empty if the run has no such list,
    because folders or the file names alone determine the split.

    Raises:
        ConfigurationError: If the list is damaged.
    """
    name = files.join(path, _SPLIT_FILE)
    if not files.exists(name):
        return {} if _has_run(path) else None
    hint = "Restore it: it says which files are for training. Or use a new --workdir."
    with _explain_damage(name, hint):
        splits = json.loads(files.read(name))
        if not isinstance(splits, dict) or not set(splits.values()) <= set(SPLITS):
            raise ValueError(f"expected an object of {', '.join(SPLITS)}")
        return splits


def save_model(model: keras.Model, workdir: str) -> None:
    """Saves `model.keras` for users; an existing one stays until the new one is complete.

    In the file all layers are trainable, also those that the training has frozen.
    """
    make_whole(model.variables)
    with tempfile.TemporaryDirectory() as folder, _all_trainable(model):
        # Keras writes only to a local disk.
        path = Path(folder) / "model.keras"
        model.save(path)
        files.write_atomically(files.join(workdir, path.name), path.read_bytes())


@contextlib.contextmanager
def _all_trainable(model: keras.Model) -> Iterator[None]:
    frozen = [layer for layer in model.layers if not layer.trainable]
    for layer in frozen:
        layer.trainable = True
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = False


def _has_run(workdir: str) -> bool:
    return files.exists(files.join(workdir, _CONFIG_FILE))


def _resolved(config: ConfigDict, model: ModelConfig) -> dict[str, Any]:
    """Returns the configuration with all fields of the model that it describes."""
    return {**config.to_dict(), "resolved_model": model.to_dict()}


def _data_facts(source: Source) -> dict[str, Any]:
    return {"num_examples": source.num_examples, "class_names": list(source.class_names)}


def _read_json(workdir: str) -> dict[str, Any]:
    """Returns the values in the configuration file of a run."""
    path = files.join(workdir, _CONFIG_FILE)
    with _explain_damage(path, _CONFIG_HINT):
        values = json.loads(files.read(path))
        if not isinstance(values, dict):
            raise ValueError(f"expected an object, found a {type(values).__name__}")
        return values


@contextlib.contextmanager
def _explain_damage(path: str, hint: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is damaged ({error}). {hint}") from error


def _check_writable(path: str) -> None:
    """Checks, without writing, that a local directory is writable or can be created."""
    place = Path(path).absolute()
    nearest = next(each for each in (place, *place.parents) if each.exists())
    checkpoints = place / "checkpoints"
    for each in (nearest, checkpoints) if checkpoints.exists() else (nearest,):
        problem = None
        if not each.is_dir():
            problem = f"{each} is not a directory"
        elif not os.access(each, os.W_OK | os.X_OK):
            problem = f"no permission to write into {each}"
        if problem is not None:
            raise ConfigurationError(
                f"--workdir={path} cannot be written: {problem}. Choose another --workdir."
            )


def _check_same_run(workdir: str, config: ConfigDict, model: ModelConfig) -> None:
    if not _has_run(workdir):
        return
    values = _read_json(workdir)
    before = {**_flatten(_defaults(values, type(model))), **_flatten(values)}
    now = _flatten(_resolved(config, model))
    keys = sorted((before.keys() | now.keys()) - _FREE)
    different = [key for key in keys if before.get(key) != now.get(key)]
    if different:
        listed = "; ".join(
            f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in different[:5]
        )
        raise ConfigurationError(
            f"{workdir} holds a run of another configuration ({listed}). Use a new "
            "--workdir, or the same configuration to resume."
        )


def _defaults(values: dict[str, Any], kind: type[ModelConfig]) -> dict[str, Any]:
    """Returns the values of keys that the file of an earlier release lacks."""
    try:
        return _resolved(base_config(), kind.from_dict(values["resolved_model"]))
    except (KeyError, TypeError, ValueError):
        # A model of another kind, which has other keys anyway.
        return dict(base_config().to_dict())


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values by key, "section.name", as JSON returns them: tuples become lists."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = json.loads(json.dumps(value))
    return flat

"""The work directory: its configuration file, the rule for resuming, the final model."""

import json
import tempfile
from pathlib import Path
from typing import Any

import keras
from ml_collections import ConfigDict

from tokenlearner_keras.models.config import VisionTransformerConfig
from trainers import files
from trainers.configuration import complete_config
from trainers.durations import NAMES as DURATION_NAMES
from trainers.durations import UNITS as DURATION_UNITS
from trainers.errors import ConfigurationError

# What may differ when a run goes on: how long, how often, what is only printed.
_FREE = {
    *(f"{name}_{unit}" for name in DURATION_NAMES for unit in DURATION_UNITS),
    "steps_per_loop",
    "keep_checkpoints",
    "keep_best_metric",
    "data.data_dir",
    "data.eval_sets",
    "demo.expected_accuracy",
    # Known only when the data are open; the data source is compared anyway.
    "resolved_model.num_classes",
}


def check_workdir(path: str | None, config: ConfigDict, model: VisionTransformerConfig) -> None:
    """Checks, without writing, that a work directory can take this configuration.

    Raises:
        ConfigurationError: If no path is given, it is a file or on no known file system,
            or it holds a run of another configuration; the keys that differ are named.
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
    _check_same_run(path, config, model)


def prepare_workdir(path: str, config: ConfigDict, model: VisionTransformerConfig) -> None:
    """Creates the work directory and writes the configuration into it.

    Raises:
        ConfigurationError: If it cannot be written.
    """
    try:
        files.make_directories(path)
        payload = _to_json(config, model).encode()
        files.write_atomically(files.join(path, "config.json"), payload)
    except OSError as error:
        raise ConfigurationError(
            f"The work directory {path!r} cannot be written: {error.strerror or error}. "
            "Choose another --workdir."
        ) from error


def read_configuration(path: str | None) -> tuple[ConfigDict, VisionTransformerConfig]:
    """Returns the configuration of the run in a work directory, and that of its model.

    Raises:
        ConfigurationError: If there is no run, or its `config.json` is damaged.
    """
    if not path:
        raise ConfigurationError("Expected --workdir=DIR of a training. Received none.")
    name = files.join(path, "config.json")
    if not files.exists(name):
        raise ConfigurationError(
            f"Expected --workdir=DIR of a training. Received {path!r}, where there is no "
            "config.json. Train first: python -m trainers.train --config=FILE --workdir=DIR"
        )
    try:
        values = json.loads(files.read(name))
        model = VisionTransformerConfig.from_dict(values.pop("resolved_model"))
        return complete_config(ConfigDict(values)), model
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{name} is damaged ({error}). Run the training command again: it writes a new one."
        ) from error


def save_model(model: keras.Model, workdir: str) -> None:
    """Saves `model.keras` for users; one that is there stays until the new one is whole."""
    with tempfile.TemporaryDirectory() as folder:
        # Keras writes by itself only to a local disk.
        path = Path(folder) / "model.keras"
        model.save(path)
        files.write_atomically(files.join(workdir, path.name), path.read_bytes())


def _to_json(config: ConfigDict, model: VisionTransformerConfig) -> str:
    """Returns the configuration with all fields of the model that it stands for."""
    values = {**config.to_dict(), "resolved_model": model.to_dict()}
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _check_same_run(workdir: str, config: ConfigDict, model: VisionTransformerConfig) -> None:
    path = files.join(workdir, "config.json")
    if not files.exists(path):
        return
    try:
        before = _flatten(json.loads(files.read(path)))
    except ValueError as error:
        raise ConfigurationError(
            f"{path} is damaged ({error}). Remove it to go on with the configuration of "
            "this command."
        ) from error
    now = _flatten(json.loads(_to_json(config, model)))
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


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat

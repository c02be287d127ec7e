"""The configuration of an experiment: all keys, a file, and overrides by flag."""

import dataclasses
import glob
import importlib.util
import os
import re
import sys
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections import config_dict
from ml_collections import config_flags

from tokenlearner_keras import VisionTransformerConfig
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig
from trainers.cli import parse_known_flags
from trainers.configuration_arguments import asks_for_help
from trainers.configuration_arguments import describe_type
from trainers.configuration_arguments import quote_sets
from trainers.configuration_arguments import split_config_argument
from trainers.data.preprocessing_config import PreprocessingConfig
from trainers.data.records_config import RecordsConfig
from trainers.data.video_preprocessing_config import VideoPreprocessingConfig
from trainers.durations import NAMES as DURATION_NAMES
from trainers.durations import UNITS as DURATION_UNITS
from trainers.errors import ConfigurationError
from trainers.misspelling import did_you_mean

# Fields with None or several types among their values cannot be typed placeholders.
_UNTYPED = object
# Where it lies depends on how the package was installed.
_EXAMPLE = os.path.join(os.path.dirname(__file__), "configs", "demo.py")
_OVERRIDE = re.compile(r"--(?:no)?config\.([^=]*)")


def base_config() -> ConfigDict:
    """Returns every key of a configuration with its default.

    A configuration file names only what differs; all other keys are filled in, so
    that each can be overridden by `--config.key=value`.
    """
    config = ConfigDict()
    config.seed = 0
    config.batch_size = 128
    config.gradient_accumulation_steps = 1
    config.steps_per_loop = 100
    config.dtype_policy = "float32"
    config.jit_compile = False
    config.loss = "softmax"
    config.label_smoothing = 0.0
    config.ema_decay = config_dict.placeholder(float)
    config.keep_checkpoints = 3
    # A metric such as "accuracy": the checkpoint best by it stays beside the newest.
    config.keep_best_metric = config_dict.placeholder(str)
    # A work directory, .keras or .npz whose weights to start from: initialization.py.
    config.init_from = config_dict.placeholder(str)
    config.model = _model_keys()
    # Fields of the model that are None on purpose; None elsewhere means its default.
    config.fields_set_to_none = ()
    config.data = ConfigDict(
        {
            "source": "freedoom_objects",
            "data_dir": config_dict.placeholder(str),
            "train_split": "train",
            "eval_split": "validation",
            # Further sets to evaluate beside eval_split: trainers/evaluation_sets.py.
            "eval_sets": (),
            "final_split": config_dict.placeholder(str),
            "normalization": "unit",
            "mixup_alpha": 0.0,
            # Whether an example has any number of labels: mean average precision.
            "multi_label": False,
            # Examples that cannot be read and are passed over: data/bad_examples.py.
            "max_bad_examples": 0,
        }
    )
    # How data.source=records is read.
    config.records = ConfigDict(
        {
            "image_key": RecordsConfig.image_key,
            "label_key": RecordsConfig.label_key,
            "num_classes": config_dict.placeholder(int),
        }
    )
    # Of images; and of clips, for a model that takes videos.
    config.augmentation = _fields_of(PreprocessingConfig, "image_size")
    config.video = _fields_of(VideoPreprocessingConfig, "image_size", "num_frames")
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-3,
            "end_learning_rate": 0.0,
            "schedule": "cosine",
            "weight_decay": 0.0,
            "weight_decay_mask": "kernels",
            "global_clipnorm": 1.0,
            "momentum": 0.9,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-8,
        }
    )
    config.demo = ConfigDict({"expected_accuracy": config_dict.placeholder(str)})
    for name in DURATION_NAMES:
        for unit in DURATION_UNITS:
            config[f"{name}_{unit}"] = config_dict.placeholder(float)
    return config


def _model_keys() -> ConfigDict:
    """Returns the model's name and a placeholder for each of its fields."""
    keys = ConfigDict({"name": "vit_ti16"})
    fields = {
        # Where both kinds of model have a field, the later one says its type.
        field.name: field.default
        for kind in (X2Plus1DConfig, VisionTransformerConfig)
        for field in dataclasses.fields(kind)
        if field.name != "num_classes"  # the data source knows it
    }
    for name, default in fields.items():
        keys[name] = config_dict.placeholder(_placeholder_type(default))
    return keys


def _placeholder_type(default: Any) -> type:
    simple = isinstance(default, (bool, int, float, str))
    return type(default) if simple else _UNTYPED


def _fields_of(settings: Any, *apart: str) -> ConfigDict:
    """Returns the defaults of a class of settings, apart from what the model decides."""
    fields = dataclasses.fields(settings)
    return ConfigDict({field.name: field.default for field in fields if field.name not in apart})


def parse_config_flag(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Reads --config=FILE, fills it up with all keys and parses the other flags.

    Afterwards `flag_values.config` is the whole configuration with its overrides.

    Args:
        argv: The command line, with the program's name in front.
        flag_values: The flags to fill.

    Raises:
        ConfigurationError: If the file is missing or wrong, or a key is unknown.
        flags.Error: If the value of another flag has the wrong type.
    """
    path, rest = split_config_argument(argv)
    rest = [quote_sets(argument) for argument in rest]
    if not path:
        if asks_for_help(rest):
            parse_known_flags(rest, flag_values)
        raise ConfigurationError(
            "Expected --config=FILE, a Python file with a function get_config(), such as"
            " --config=trainers/configs/demo.py. Received none."
        )
    config = complete_config(load_config_file(path))
    overrides = [argument for argument in rest if _OVERRIDE.match(argument)]
    for override in overrides:
        _check_key(_OVERRIDE.findall(override)[0], config)
    config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=rest)
    try:
        parse_known_flags(rest, flag_values, [key for key, _ in _leaves(config)])
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{error} (in one of: {' '.join(overrides)})") from error
    overridden = flag_values["config"].override_values
    _check_none(overridden)
    _note_none(flag_values.config, overridden)
    _replace_durations(flag_values.config, overridden)


def model_fields(config: ConfigDict) -> dict[str, Any]:
    """Returns the overrides of the model's fields: those with a value, and explicit None.

    Args:
        config: The whole configuration.
    """
    return {
        name: value.to_dict() if isinstance(value, ConfigDict) else value
        for name, value in config.model.items()
        if name != "name" and (value is not None or name in config.fields_set_to_none)
    }


def load_config_file(path: str) -> ConfigDict:
    """Runs the get_config() of a Python file.

    Raises:
        ConfigurationError: If the file is missing, has no such function, or fails.
    """
    if not os.path.isfile(path):
        hint = did_you_mean(path, glob.glob(os.path.join(os.path.dirname(path), "*.py")))
        raise ConfigurationError(
            f"There is no configuration file {path!r}.{hint} Experiments are Python files such "
            f"as {_EXAMPLE}."
        )
    specification = importlib.util.spec_from_file_location("experiment_config", path)
    if specification is None or specification.loader is None:
        raise ConfigurationError(f"Expected a Python file (.py) for --config. Got {path!r}.")
    module = importlib.util.module_from_spec(specification)
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a folder of the user's; a dry run writes nothing
    try:
        specification.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:
        raise ConfigurationError(
            f"The configuration file {path!r} cannot be read: {type(error).__name__}: "
            f"{error}. It needs a function get_config() that returns an "
            "ml_collections.ConfigDict."
        ) from error
    finally:
        sys.dont_write_bytecode = before
    if not isinstance(config, ConfigDict):
        raise ConfigurationError(
            f"get_config() of {path!r} must return an ml_collections.ConfigDict. It "
            f"returned a {type(config).__name__}."
        )
    return config


def complete_config(config: ConfigDict) -> ConfigDict:
    """Returns the base configuration updated by an experiment's keys.

    Raises:
        ConfigurationError: If a key is unknown or a value has the wrong type.
    """
    complete = base_config()
    empty = [(k, v) for k, v in config.items() if isinstance(v, ConfigDict) and not len(v)]
    leaves = [(k, v) for k, v in empty if not isinstance(complete.get(k, v), ConfigDict)]
    for key, value in [*leaves, *_leaves(config)]:
        _check_key(key, complete)
        section, _, name = key.rpartition(".")
        target = complete[section] if section else complete
        if value is None:  # which has no type; an override has to be read by one
            value = config_dict.placeholder(target.get_type(name))
        try:
            target[name] = value
        except (TypeError, ValueError) as error:
            received = value.to_dict() if isinstance(value, ConfigDict) else value
            raise ConfigurationError(
                f"Configuration key {key!r} must be {describe_type(target.get_type(name))}. "
                f"Received: {received!r}."
            ) from error
    _check_none(dict(_leaves(config)))
    if "fields_set_to_none" not in config:  # else it is a base_config(), full of placeholders
        _note_none(complete, dict(_leaves(config)))
    return complete


def _leaves(config: ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for name, value in config.items():
        key = f"{prefix}{name}"
        # In a section an empty dict is a value, and a wrong one; a section may be empty.
        if isinstance(value, ConfigDict) and (len(value) or not prefix):
            leaves += _leaves(value, f"{key}.")
        else:
            leaves.append((key, value))
    return leaves


def _check_key(key: str, config: ConfigDict) -> None:
    known = [name for name, _ in _leaves(config)]
    if key not in known:
        raise ConfigurationError(
            f"Unknown configuration key {key!r}.{did_you_mean(key, known)} Known keys are "
            "listed in trainers/configuration.py, base_config()."
        )


def _note_none(config: ConfigDict, given: dict[str, Any]) -> None:
    """Remembers which fields of the model were set to None, not left out."""
    unknown = set(map(str, config.fields_set_to_none)) - set(config.model)
    if unknown:
        raise ConfigurationError(
            "Configuration key 'fields_set_to_none' must be a tuple of names of the model's "
            f"fields, which the trainer fills by itself. Received: {config.fields_set_to_none!r}. "
            "Leave it out."
        )
    names = [key.removeprefix("model.") for key, value in given.items() if value is None]
    fields = [name for name in names if name in config.model and name != "name"]
    config.fields_set_to_none = tuple(sorted({*config.fields_set_to_none, *fields}))


def _check_none(overrides: dict[str, Any]) -> None:
    """Refuses None for a key that must have a value."""
    optional = {key for key, value in _leaves(base_config()) if value is None}
    optional |= {"optimizer.global_clipnorm", "video.scale_jitter"}
    for key, value in overrides.items():
        if value is None and key not in optional:
            section, _, name = key.rpartition(".")
            target = base_config()[section] if section else base_config()
            kind = describe_type(target.get_type(name))
            raise ConfigurationError(
                f"Configuration key {key!r} must be {kind}. Received: None. Leave it out for "
                f"its default, {target[name]!r}."
            )


def _replace_durations(config: ConfigDict, overrides: dict[str, Any]) -> None:
    """Lets a duration on the command line replace the file's, whatever the units."""
    for name in DURATION_NAMES:
        given = [unit for unit in DURATION_UNITS if f"{name}_{unit}" in overrides]
        if given:
            for unit in DURATION_UNITS:
                if unit not in given:
                    config[f"{name}_{unit}"] = None

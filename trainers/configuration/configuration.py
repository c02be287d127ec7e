"""Defines and describes every key of a configuration; reads configuration files and overrides."""

import dataclasses
import glob
import inspect
import os
import re
import runpy
import sys
import typing
from typing import Any
from typing import TypeAlias

from absl import flags
from ml_collections import ConfigDict
from ml_collections import config_dict
from ml_collections import config_flags

from tokenlearner_keras import VisionTransformerConfig
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig
from trainers.configuration.data_options import DataConfig
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import RecordsConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.configuration.flags import describe_type
from trainers.configuration.flags import quote_texts
from trainers.configuration.flags import split_config_argument
from trainers.configuration.schedule import NAMES as DURATION_NAMES
from trainers.configuration.schedule import UNITS as DURATION_UNITS
from trainers.configuration.training_options import OptimizerConfig
from trainers.configuration.training_options import TrainingConfig
from trainers.utils.cli import parse_known_flags
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

# Its location depends on how the package was installed.
_EXAMPLE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "configs", "demo.py")
_HELP = re.compile(r"--?(help(short|full)?|\?)$")
_OVERRIDE = re.compile(r"--(?:no)?config\.([^=]*)")
#: The classes whose docstrings describe the keys of a section; the first that does counts.
SECTIONS: dict[str, tuple[type, ...]] = {
    "": (TrainingConfig,),
    "data": (DataConfig,),
    "optimizer": (OptimizerConfig,),
    "model": (VisionTransformerConfig, X2Plus1DConfig),
    "augmentation": (PreprocessingConfig,),
    "video": (VideoPreprocessingConfig,),
    "records": (RecordsConfig,),
}

#: A `ConfigDict` with the keys that differ from the defaults, or the path of a recipe.
AnyConfig: TypeAlias = ConfigDict | str | os.PathLike[str]


def base_config() -> ConfigDict:
    """Returns every key of a configuration with its default.

    A configuration file names only what differs; all other keys are filled in, so
    that each can be overridden by `--config.key=value`. The keys without a section and those of
    the sections `data`, `optimizer`, `augmentation`, `video`, `records` and `model` are the fields
    of classes, which describe and check them (`SECTIONS`).

    Keys:
        fields_set_to_none: Fields of the model that are None on purpose; filled by the
            trainer, leave it out.
        model.name: One of tokenlearner_keras.list_models(), or another that their grammar
            allows.
        demo.expected_accuracy: What the demo's report says is to be expected.
        total_*: length of the training.
        warmup_*: length of the warm-up of the learning rate.
        log_*: interval of the rows of training metrics; None: a hundredth of the training.
        eval_*: interval of the evaluations; the last step is evaluated anyway.
        checkpoint_*: interval of the checkpoints; the last step is saved anyway.
    """
    config = _fields_of(TrainingConfig)
    config.model = _model_keys()
    config.fields_set_to_none = ()
    config.data = _fields_of(DataConfig)
    config.records = _fields_of(RecordsConfig, "multi_label", "recover")
    # For images, and for the clips of a video model.
    apart = ("image_size", "exif_orientation", "scaled_decoding", "channels")
    config.augmentation = _fields_of(PreprocessingConfig, *apart)
    apart = ("image_size", "num_frames", "scaled_decoding", "channels")
    config.video = _fields_of(VideoPreprocessingConfig, *apart)
    config.optimizer = _fields_of(OptimizerConfig)
    config.demo = ConfigDict({"expected_accuracy": config_dict.placeholder(str)})
    for name in DURATION_NAMES:
        for unit in DURATION_UNITS:
            config[f"{name}_{unit}"] = config_dict.placeholder(float)
    return config


def _model_keys() -> ConfigDict:
    """Returns the model's name and a placeholder for each of its fields."""
    keys = ConfigDict({"name": "vit_ti16"})
    # Where both kinds of model have a field, the later kind decides its type.
    hints = typing.get_type_hints(X2Plus1DConfig) | typing.get_type_hints(VisionTransformerConfig)
    hints.pop("num_classes")  # the data source knows it
    for name, hint in hints.items():
        # Fields that may be None or of several types cannot be typed placeholders.
        is_typed = hint in (bool, int, float, str)
        keys[name] = config_dict.placeholder(hint if is_typed else object)
    return keys


def _fields_of(section: Any, *apart: str) -> ConfigDict:
    """Returns the defaults of a section's class, except what other keys decide."""
    hints = typing.get_type_hints(section)
    fields = [field for field in dataclasses.fields(section) if field.name not in apart]
    return ConfigDict(
        {
            field.name: config_dict.placeholder(_type_beside_none(hints[field.name]))
            if field.default is None
            else field.default
            for field in fields
        }
    )


def _type_beside_none(hint: Any) -> type:
    """Returns the type of `X | None`, or object where there are several."""
    types = [each for each in typing.get_args(hint) if each is not type(None)]
    return types[0] if len(types) == 1 else object


def parse_config_flag(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Reads --config=FILE and the other flags after the program's name.

    Afterwards `flag_values.config` is the whole configuration with its overrides. Raises as
    `whole_config` and `parse_known_flags` do.
    """
    path, rest = split_config_argument(argv)
    rest = [quote_texts(argument) for argument in rest]
    if any(map(_HELP.match, argv)):
        try:
            parse_known_flags(rest, flag_values)
        except SystemExit:
            print(_describe_keys())
            raise
    if not path:
        raise ConfigurationError(
            "Expected --config=FILE, a Python file with a function get_config(), such as"
            " --config=trainers/configs/demo.py. Received none."
        )
    config = whole_config(path)
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
    """Returns the overrides of the model's fields: those with a value, and explicit None."""
    return {
        name: value.to_dict() if isinstance(value, ConfigDict) else value
        for name, value in config.model.items()
        if name != "name" and (value is not None or name in config.fields_set_to_none)
    }


def whole_config(config: AnyConfig) -> ConfigDict:
    """Returns a new configuration with every key; a wrong one is a ConfigurationError."""
    if isinstance(config, (str, os.PathLike)):
        config = _load_config_file(os.fspath(config))
    if not isinstance(config, ConfigDict):
        raise ConfigurationError(
            "Expected a configuration: an ml_collections.ConfigDict, or the path of a recipe such "
            f"as {_EXAMPLE}. Received: {config!r}."
        )
    complete = base_config()
    empty = [(k, v) for k, v in config.items() if isinstance(v, ConfigDict) and not len(v)]
    leaves = [(k, v) for k, v in empty if not isinstance(complete.get(k, v), ConfigDict)]
    for key, value in [*leaves, *_leaves(config)]:
        _check_key(key, complete)
        section, _, name = key.rpartition(".")
        target = complete[section] if section else complete
        if value is None:  # None has no type, and parsing an override needs one
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


def _load_config_file(path: str) -> ConfigDict:
    """Runs the get_config() of a Python file; raises ConfigurationError if that is not possible."""
    if not os.path.isfile(path):
        hint = did_you_mean(path, glob.glob(os.path.join(os.path.dirname(path), "*.py")))
        raise ConfigurationError(
            f"There is no configuration file {path!r}.{hint} Experiments are Python files such "
            f"as {_EXAMPLE}."
        )
    if not path.endswith(".py"):
        raise ConfigurationError(f"Expected a Python file (.py) for --config. Got {path!r}.")
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # of what it imports: a dry run writes nothing
    try:
        config = runpy.run_path(path)["get_config"]()
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


def _leaves(config: ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for name, value in config.items():
        key = f"{prefix}{name}"
        # A section may be empty, but within a section an empty dict is a (wrong) value.
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
            "listed by --help."
        )


def _note_none(config: ConfigDict, given: dict[str, Any]) -> None:
    """Records which fields of the model were set to None, rather than left out."""
    unknown = set(map(str, config.fields_set_to_none)) - set(config.model)
    if unknown:
        raise ConfigurationError(
            "Configuration key 'fields_set_to_none' must be a tuple of names of the model's "
            f"fields, filled by the trainer. Received: {config.fields_set_to_none!r}. Leave it out."
        )
    names = [key.removeprefix("model.") for key, value in given.items() if value is None]
    fields = [name for name in names if name in config.model and name != "name"]
    config.fields_set_to_none = tuple(sorted({*config.fields_set_to_none, *fields}))


def _check_none(overrides: dict[str, Any]) -> None:
    """Refuses None for a key that must have a value."""
    defaults = base_config()
    optional = {key for key, value in _leaves(defaults) if value is None}
    optional |= {"optimizer.global_clipnorm", "video.scale_jitter"}  # whose default is a value
    for key, value in overrides.items():
        if value is None and key not in optional:
            section, _, name = key.rpartition(".")
            target = defaults[section] if section else defaults
            kind = describe_type(target.get_type(name))
            raise ConfigurationError(
                f"Configuration key {key!r} must be {kind}. Received: None. Leave it out for "
                f"its default, {target[name]!r}."
            )


def _replace_durations(config: ConfigDict, overrides: dict[str, Any]) -> None:
    """Lets a duration on the command line replace the file's, whatever the units."""
    for name in DURATION_NAMES:
        keys = {f"{name}_{unit}" for unit in DURATION_UNITS}
        if keys & overrides.keys():
            for key in keys - overrides.keys():
                config[key] = None


def _describe_keys() -> str:
    """Returns the --help text of the configuration."""
    config = base_config()
    lines = key_lines()
    parts = [
        "--config=FILE: the recipe, a Python file such as trainers/configs/demo.py, which names "
        "what differs from the defaults below. Every key is a flag, --config.KEY=VALUE. Of the "
        "model and of durations, None is what follows from the model's name and the other keys."
    ]
    sections = sorted(name for name, value in config.items() if isinstance(value, ConfigDict))
    for section in ("", *sections):
        keys = config[section] if section else config
        parts.append(f"\nsection {section}:" if section else "\nwithout a section:")
        for name in sorted(set(keys) - set(sections)):
            key = f"{section}.{name}" if section else name
            kind = _type(section, name, keys.get_type(name))
            parts.append(f"  --config.{key} ({kind}; default {keys[name]!r}): {lines[key]}")
    return "\n".join(parts)


def key_lines() -> dict[str, str]:
    """Returns the description of each key that has one, taken from the docstrings."""
    lines = _entries(base_config)
    for section, classes in SECTIONS.items():
        for each in reversed(classes):
            start = f"{section}." if section else ""
            lines |= {f"{start}{name}": line for name, line in _entries(each).items()}
    for name in DURATION_NAMES:
        line = lines.pop(f"{name}_*")
        lines |= {f"{name}_{unit}": f"In {unit}: {line}" for unit in DURATION_UNITS}
    return {key: line[:1].upper() + line[1:] for key, line in lines.items()}


def _entries(documented: Any) -> dict[str, str]:
    """Returns the first sentence of each entry of a docstring: `name: Text. More text.`"""
    docstring = inspect.getdoc(documented) or ""
    entries = re.findall(r"^    ([a-z][\w.*]*): (.*(?:\n        .*)*)", docstring, re.MULTILINE)
    texts = {name: " ".join(text.split()) for name, text in entries}
    return {name: re.split(r"(?<=\.)\s(?=[A-Z\"`])", text)[0] for name, text in texts.items()}


def _type(section: str, name: str, kind: type) -> str:
    """Returns the words for a key's type; of a field's types, None is not mentioned."""
    kinds = [kind]
    if kind is object:
        hints: dict[str, Any] = {}
        for each in reversed(SECTIONS[section]):
            hints |= typing.get_type_hints(each)
        choices = [each for each in typing.get_args(hints[name]) if each is not type(None)]
        is_tuple = typing.get_origin(hints[name]) is tuple
        kinds = [tuple] if is_tuple else [typing.get_origin(each) or each for each in choices]
    return " or ".join(describe_type(each).partition(",")[0] for each in kinds)

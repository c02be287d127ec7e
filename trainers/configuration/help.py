"""Lists the keys of a configuration with type, default and one line each, for --help."""

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from tokenlearner_keras import VisionTransformerConfig
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig
from trainers.configuration.data_options import DataConfig
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import RecordsConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.configuration.flags import describe_type
from trainers.configuration.schedule import NAMES as DURATION_NAMES
from trainers.configuration.schedule import UNITS as DURATION_UNITS
from trainers.configuration.training_options import OptimizerConfig
from trainers.configuration.training_options import TrainingConfig

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


def describe_keys(base_config: Callable[[], ConfigDict]) -> str:
    """Returns the --help text of the configuration.

    `base_config` returns every key with its default; its docstring describes the keys that the
    classes of `SECTIONS` do not.
    """
    config = base_config()
    lines = key_lines(base_config)
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


def key_lines(base_config: Callable[[], ConfigDict]) -> dict[str, str]:
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
    entries = re.findall(
        r"^    ([\w.*]+): (.*(?:\n        .*)*)", inspect.getdoc(documented) or "", re.MULTILINE
    )
    texts = {name: " ".join(text.split()) for name, text in entries}
    return {name: re.split(r"(?<=\.)\s(?=[A-Z\"`])", text)[0] for name, text in texts.items()}


def _type(section: str, name: str, kind: type) -> str:
    """Returns the words for a key's type; for a field that may be None, those of its other type."""
    if kind is object:
        hints: dict[str, Any] = {}
        for each in reversed(SECTIONS[section]):
            hints |= typing.get_type_hints(each)
        choices = [each for each in typing.get_args(hints[name]) if each is not type(None)]
        is_tuple = typing.get_origin(hints[name]) is tuple
        kind = tuple if is_tuple else typing.get_origin(choices[0]) or choices[0]
    return describe_type(kind).partition(",")[0]

"""Defines the flags of `predict` and `export` that choose a trained model."""

import dataclasses
from typing import Any

from absl import flags

from trainers.configuration.data_options import NORMALIZATIONS
from trainers.inference.keras_file import InputSettings
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError

# The flags belong to the module that calls `define_model_flags`, and so to its --help.
flags.disclaim_key_flags()

_OF_A_WORKDIR = ("checkpoint",)
#: `export` defines only some of these.
_OF_A_FILE = tuple(field.name for field in dataclasses.fields(InputSettings))


def define_model_flags(flag_values: flags.FlagValues) -> None:
    """Defines --workdir, --model and how the inputs of a model are made."""
    values = {"flag_values": flag_values}
    defaults = InputSettings()
    cli.define_path("workdir", "The work directory of a training.", **values)
    cli.define_path("model", "A .keras file, in place of --workdir.", **values)
    cli.define_path("class_names", "A text file with a class a line.", **values)
    flags.DEFINE_integer(
        "checkpoint", None, "With --workdir: step; the newest valid one if not given.", **values
    )
    flags.DEFINE_integer(
        "image_size", None, "With --model, if it takes any: pixels of a side.", **values
    )
    flags.DEFINE_float(
        "crop_fraction",
        defaults.crop_fraction,
        "With --model: share of the image in the window that is cut out of its middle.",
        **values,
    )
    flags.DEFINE_enum(
        "normalization",
        defaults.normalization,
        NORMALIZATIONS,
        "With --model: unit is -1 to 1, zero_one 0 to 1.",
        **values,
    )
    flags.DEFINE_integer(
        "stride", defaults.stride, "With --model: distance of a clip's frames.", **values
    )


def model_arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of `predict` and `export` on how to load the model.

    Raises:
        ConfigurationError: If not one model is given, or a flag of the other kind of model.
    """
    if bool(values.workdir) == bool(values.model):
        raise ConfigurationError(
            "Expected one of --workdir=DIR and --model=FILE.keras. Received "
            f"{'both' if values.workdir else 'none'}."
        )
    if values.model and not values.model.endswith(".keras"):
        raise ConfigurationError(f"Expected --model=FILE.keras. Received {values.model!r}.")
    alien, other = (_OF_A_FILE, "--model") if values.workdir else (_OF_A_WORKDIR, "--workdir")
    for name in alien:
        if name in values and values[name].present:
            raise ConfigurationError(f"--{name} goes with {other}. Leave it out.")
    settings = {name: values[name].value for name in _OF_A_FILE if name in values}
    return {
        "checkpoint": values.checkpoint,
        "class_names": values.class_names,
        "settings": InputSettings(**settings) if values.model else None,
    }

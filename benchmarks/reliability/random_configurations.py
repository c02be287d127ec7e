"""Configuration files and command lines drawn at random, right ones and wrong ones."""

import copy
import dataclasses
from typing import Any

from hypothesis import strategies
from ml_collections import ConfigDict

from trainers.configuration.configuration import base_config

_IMAGE_MODEL = {
    "name": "vit_ti4_d2_tl4at1", "image_size": 16, "width": 16, "num_heads": 2, "mlp_dim": 32,
}  # fmt: skip
_VIDEO_MODEL = {**_IMAGE_MODEL, "name": "vivit_ti4x2_d2_tl4at1", "num_frames": 4}
_CONVOLUTION = {
    **{"name": "x2plus1d_m_tokenlearner", "image_size": 32, "num_frames": 4, "stem_width": 4},
    **{"widths": (4, 8), "inner_widths": (8, 16), "depths": (1, 2), "module_blocks": 1},
    **{"num_tokens": 2, "num_heads": 2, "key_width": 8, "representation_size": 8},
}
# A dry run evaluates a batch of all views.
_VIDEO = {"min_resize": 32, "temporal_views": 1, "spatial_views": 1}
#: What is changed: an image model, a video model, a convolutional one, several labels.
BASES: dict[str, dict[str, Any]] = {
    "image": {"model": _IMAGE_MODEL, "data": {"source": "digits"}},
    "video": {"model": _VIDEO_MODEL, "data": {"source": "freedoom_motion"}, "video": _VIDEO},
    "convolution": {"model": _CONVOLUTION, "data": {"source": "freedoom_motion"}, "video": _VIDEO},
    "labels": {
        "model": _VIDEO_MODEL,
        "data": {"source": "freedoom_multilabel", "multi_label": True},
        "video": _VIDEO,
        "loss": "sigmoid",
    },
}
_WORDS = (
    *("", "abc", "None", "True", "False", "()", "(1,)", "(1, 2)", "(0.5, 1.0)", "(nan, 1.0)"),
    *("[1, 2]", "{}", "'x'", "1e400", "-1e400", "2**8", "0x10", "1,2", "test", "validation"),
    *("adamw", "sgd", "cosine", "softmax", "sigmoid", "pad", "mixed_bfloat16", "v1.0", "tfds:x"),
    *("digits", "folder", "records", "unit", "max", "vit_b16", "accuracy", "/dev/null", "~", "..."),
)
_NUMBERS = (0, 1, -1, 2, 3, 4, 7, 16, 17, 32, 10**6, 2**31, 2**32, 2**63, 10**30)
_FRACTIONS = (
    *(0.0, 1.0, -1.0, 0.5, 1.5, 1e-12, 1e30, 1e308, -1e-9),
    *(float("nan"), float("inf"), -float("inf")),
)
# What a shell can hand over, and a file hold.
_TEXT = strategies.text(strategies.characters(exclude_categories=("Cs", "Cc")), max_size=12)
_BY_TYPE: dict[type, strategies.SearchStrategy[Any]] = {
    bool: strategies.booleans(),
    int: strategies.sampled_from(_NUMBERS) | strategies.integers(-40, 400),
    float: strategies.sampled_from(_FRACTIONS) | strategies.floats(-2, 2),
    str: strategies.sampled_from(_WORDS) | _TEXT,
}
_SCALARS = strategies.one_of(strategies.none(), *_BY_TYPE.values())
_TUPLES = strategies.lists(_SCALARS, max_size=3).map(tuple)
_ANY = strategies.one_of(_SCALARS, _TUPLES, _TUPLES.map(list), strategies.just({}), _BY_TYPE[int])
_FLAGS = {
    "workdir": strategies.sampled_from(("", "/dev/null", "/proc/x", "gs://", "x:\\y")) | _TEXT,
    "profile_steps": strategies.sampled_from(("1:2", "0:1", "2:1", "a:b", "")) | _TEXT,
    "engine": strategies.sampled_from(("tensorflow", "jax", "torch", "")) | _TEXT,
    "strategy": strategies.sampled_from(("one_device", "auto", "tpu_pod", "")) | _TEXT,
    "virtual_devices": _ANY.map(str),
    "batch_axis": _ANY.map(str),
    "model_axis": _ANY.map(str),
    "dry_run": _ANY.map(str),
}


@dataclasses.dataclass(frozen=True)
class Change:
    key: str
    value: Any


@dataclasses.dataclass(frozen=True)
class Setting:
    """A configuration file, which starts from a base, and a command line."""

    base: str
    in_file: tuple[Change, ...]
    overrides: tuple[Change, ...]
    flags: tuple[Change, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        return (*self.in_file, *self.overrides, *self.flags)

    def file(self) -> str:
        values = {"total_steps": 2, "batch_size": 8, **copy.deepcopy(BASES[self.base])}
        for change in self.in_file:
            section, _, name = change.key.rpartition(".")
            place = values.setdefault(section, {}) if section else values
            place[name] = change.value
        lines = [
            "from ml_collections import ConfigDict",
            "nan, inf = float('nan'), float('inf')",
            "def get_config():",
            f"    return ConfigDict({values!r})",
        ]
        return "\n".join(lines)

    def arguments(self) -> list[str]:
        """Returns the command line behind `--config=FILE`."""
        return [
            *(f"--config.{change.key}={change.value}" for change in self.overrides),
            *(f"--{change.key}={change.value}" for change in self.flags),
        ]


def _types() -> dict[str, type]:
    types: dict[str, type] = {}
    config = base_config()
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            types |= {f"{name}.{key}": value.get_type(key) for key in value}
        else:
            types[name] = config.get_type(name)
    return types


_TYPES = _types()
#: Keys that exist, and some that are near.
_KEYS = strategies.sampled_from(sorted(_TYPES))
_NEAR = strategies.sampled_from(
    ("batchsize", "model", "data", "model.depht", "optimizer.lr", "total", "x.y", "")
)


_ONE_IN_20 = strategies.integers(0, 19).map(lambda number: number == 19)


@strategies.composite
def _change(draw: Any, on_command_line: bool) -> Change:
    key = draw(_NEAR if on_command_line and draw(_ONE_IN_20) else _KEYS)
    fitting = _BY_TYPE.get(_TYPES.get(key, object), _ANY)
    value = draw(_ANY if draw(_ONE_IN_20) else fitting)
    return Change(key, str(value) if on_command_line else value)


@strategies.composite
def _flag(draw: Any) -> Change:
    name = draw(strategies.sampled_from(sorted(_FLAGS)) | strategies.just("work_dir"))
    return Change(name, draw(_FLAGS.get(name, _TEXT)))


def _few(changes: Any) -> Any:
    return strategies.lists(changes, max_size=2).map(tuple)


def settings() -> strategies.SearchStrategy[Setting]:
    return strategies.builds(
        Setting,
        base=strategies.sampled_from(sorted(BASES)),
        in_file=_few(_change(False)),
        overrides=_few(_change(True)),
        flags=strategies.one_of(strategies.just(()), strategies.just(()), _few(_flag())),
    )

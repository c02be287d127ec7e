"""The names of parameters in public ViT checkpoints, turned into the reference's."""

import re
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

EMBEDDING = "embedding/kernel"
POSITIONS = "Transformer/posembed_input/pos_embedding"
CLASS_TOKEN = "cls"

#: Where a file may keep the model: bare parameters, a train state of big_vision (alone
#: or as the image tower of a pair) and the older optimizer state.
_PREFIXES = ("", "params/", "opt/target/", "params/img/")

# Older files count all modules of a block together, newer ones each kind apart.
_OLDER_NUMBERS = {
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
    "LayerNorm_2": "LayerNorm_1",
    "MlpBlock_3": "MlpBlock_0",
}
_OTHER_PLACES = {
    "pos_embedding": POSITIONS,
    "Transformer/pos_embedding": POSITIONS,
    "output_projection/kernel": "head/kernel",
    "output_projection/bias": "head/bias",
}
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/")
_STACKED_BLOCKS = "Transformer/encoderblock/"


class Source(NamedTuple):
    """An array and its key in the file."""

    key: str
    array: np.ndarray


def check_vit_names(names: Collection[str]) -> str:
    """Returns what precedes the parameters' names in a ViT checkpoint of these keys.

    Raises:
        ValueError: If the keys are not those of a ViT.
    """
    prefix = next((each for each in _PREFIXES if each + EMBEDDING in names), None)
    if prefix is None:
        raise ValueError(
            f"holds no key {EMBEDDING!r}, also not below params/ or opt/target/, so it is no "
            f"public ViT checkpoint. Its {len(names)} keys begin with {sorted(names)[:4]}"
        )
    if not any(name.startswith(f"{prefix}Transformer/encoderblock") for name in names):
        raise ValueError("holds no encoder block, so it is no public ViT checkpoint")
    return prefix


def name_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Source], set[str]]:
    """Returns the arrays by the reference's names, and the keys outside the model.

    Raises:
        ValueError: If the keys are not those of a ViT, or two stand for the same name.

    Reference:
        big_vision `models/vit.py` (`fix_old_checkpoints`, `scan_to_pyloop`) and
        `utils.py` (`load_params`); flax `convert_pre_linen` for the numbers.
    """
    prefix = check_vit_names(arrays)
    sources: dict[str, Source] = {}
    outside = set()
    for key, array in arrays.items():
        if not key.startswith(prefix):
            outside.add(key)
            continue
        for name, part in _unstack(key.removeprefix(prefix), array):
            name = _reference_name(name)
            if name in sources:
                raise ValueError(f"holds {name!r} twice, as {sources[name].key!r} and {key!r}")
            sources[name] = Source(key, part)
    return sources, outside


def count_blocks(names: Collection[str]) -> int:
    """Returns the number of encoder blocks among parameters by the reference's names."""
    matches = (_BLOCK.match(name) for name in names)
    return len({match[1] for match in matches if match})


def _unstack(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the array, or its part for each block if the blocks are stacked."""
    if not name.startswith(_STACKED_BLOCKS) or not array.ndim:
        yield name, array
        return
    for index, part in enumerate(array):
        yield name.replace("encoderblock/", f"encoderblock_{index}/"), part


def _reference_name(name: str) -> str:
    if _BLOCK.match(name):
        parts = name.split("/")
        parts[2] = _OLDER_NUMBERS.get(parts[2], parts[2])
        return "/".join(parts)
    return _OTHER_PLACES.get(name, name)

"""Copies arrays of Keras' backend to NumPy, even those sharded over devices."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def to_numpy(value: Any) -> NDArray[Any]:
    """Returns a copy of a whole array, even of one sharded over the devices of this host.

    Args:
        value: A Keras variable or a tensor of the backend. If the array spans several hosts, this
            one must hold every part.
    """
    if keras.backend.backend() != "jax":
        return np.array(value.numpy())
    if isinstance(value, keras.Variable):
        value = value.value
    if getattr(value, "is_fully_addressable", True):
        return np.array(value)
    if value.is_fully_replicated:
        return np.array(value.addressable_data(0))
    whole = np.empty(value.shape, value.dtype)
    for shard in value.addressable_shards:
        whole[shard.index] = shard.data
    return whole


def make_whole(variables: Iterable[keras.Variable]) -> None:
    """Makes each variable whole on this host: Keras would miss the parts on other hosts."""
    for variable in variables:
        if not getattr(variable.value, "is_fully_addressable", True):
            variable.assign(to_numpy(variable))

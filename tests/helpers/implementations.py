"""Implementations that take no time, for the tests of comparisons."""

import time

import numpy as np

from benchmarks.worker import Implementation


def constant(value: float, seconds: float = 0.0, megabytes: int = 0) -> Implementation:
    """Returns one that takes some time and memory and gives a value."""

    def run() -> int:
        time.sleep(seconds)
        return len(bytearray(b"x" * (megabytes << 20)))

    return Implementation(run, ("numpy",), lambda: {"output": np.full(3, value)})

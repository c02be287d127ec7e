"""Arms that take no time, for the tests of the contest."""

import time

import numpy as np

from benchmarks.worker import Arm


def constant(value: float, seconds: float = 0.0, megabytes: int = 0) -> Arm:
    """Makes an arm that takes some time and memory and gives a value."""

    def run() -> int:
        time.sleep(seconds)
        return len(bytearray(b"x" * (megabytes << 20)))

    return Arm(run, lambda: {"output": np.full(3, value)}, ("numpy",))

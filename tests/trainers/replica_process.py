"""A process that trains every case of `equality` on its devices and saves how they end.

`python -m tests.trainers.replica_process OUTPUT.npz [VIRTUAL_DEVICES]`; TF_CONFIG in the
environment makes it one of several workers. A strategy for each number of devices needs
a process of its own: the collective operations of two strategies would be mixed up.
"""

import logging
import sys

import numpy as np

from tests.trainers.equality import CASES
from tests.trainers.equality import train_case
from trainers.distribution import make_strategy
from trainers.hosts import Hosts


def main() -> None:
    """Trains the cases, one after the other."""
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    output, *devices = sys.argv[1:]
    strategy = make_strategy("auto", None, int(devices[0]) if devices else None)
    ends = {
        f"{case}:{name}": value
        for case in CASES
        for name, value in train_case(strategy, case).items()
    }
    ends["replicas"] = np.asarray(strategy.num_replicas_in_sync)
    np.savez(output, **ends)
    Hosts(strategy).wait()


if __name__ == "__main__":
    main()

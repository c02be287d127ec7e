"""A process that trains several cases on its devices and saves how they end.

`python -m tests.helpers.replica_process OUTPUT.npz [VIRTUAL_DEVICES] [--cases=KIND]`;
TF_CONFIG in the environment makes it one of several workers. An engine for each number of
devices needs a process of its own: the collective operations of two would be
mixed up.
"""

import argparse

import numpy as np

from tests.helpers import equality
from tests.helpers import remat_runs
from tests.helpers.step_runs import Arrays
from trainers.engines.engine import Engine
from trainers.engines.flags import make_engine


def main() -> None:
    """Trains the cases, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("virtual_devices", nargs="?", type=int)
    parser.add_argument("--cases", choices=("equality", "remat"), default="equality")
    arguments = parser.parse_args()
    engine = make_engine(virtual_devices=arguments.virtual_devices)
    train = _train_equality if arguments.cases == "equality" else _train_remat
    replicas = np.asarray(engine.num_replicas)
    np.savez(arguments.output, replicas=replicas, **train(engine))
    engine.hosts.barrier()


def _train_equality(engine: Engine) -> Arrays:
    """Returns the ends as `CASE:NAME`."""
    return {
        f"{case}:{name}": value
        for case in equality.FEWER_CASES
        for name, value in equality.train_case(engine, case).items()
    }


def _train_remat(engine: Engine) -> Arrays:
    """Returns the ends as `CASE:plain:NAME` and `CASE:remat:NAME`."""
    return {
        f"{case}:{kind}:{name}": value
        for case, kind in remat_runs.FEWER_RUNS
        for name, value in remat_runs.train_remat(engine, case, remat=kind == "remat").items()
    }


if __name__ == "__main__":
    main()

"""A process of a comparison, for one framework; it answers messages in JSON, line by line."""

import gc
import json
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.timing import environment
from benchmarks.timing import memory_growth
from benchmarks.timing import timed


@dataclass(frozen=True)
class Implementation:
    """One way to do the work, and the packages whose versions belong to the row."""

    #: Does the work once and returns when it is done.
    run: Callable[[], Any]
    packages: tuple[str, ...]
    #: Does the work and returns what is compared.
    result: Callable[[], dict[str, np.ndarray]] = dict


def main() -> None:
    # What frameworks print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    built: dict[str, Implementation] = {}
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), built)), file=answers, flush=True)


def _answer(message: list[Any], built: dict[str, Implementation]) -> Any:
    match message:
        case ["build", name, function, arguments]:
            built[name] = pkgutil.resolve_name(function)(**arguments)
            built[name].run()
            return environment(*built[name].packages)
        case ["time", name, runs]:
            return timed(built[name].run, runs)
        case ["memory", name]:
            return memory_growth(built[name].run)
        case ["result", name, path]:
            arrays: dict[str, Any] = built[name].result()
            np.savez(path, **arrays)
        case ["clear"]:
            built.clear()
            gc.collect()
        case _:
            raise ValueError(f"Unknown message: {message}")
    return None


if __name__ == "__main__":
    main()

"""A process of a comparison: builds arms of one framework, and works when it is told to.

    python -m benchmarks.worker

A process for each framework and backend, because Keras has one backend a process. It answers
each line on standard input, a JSON list, by a line of JSON:

- `["build", NAME, "MODULE:FUNCTION", {"argument": ...}]`: makes an arm and runs it once;
- `["result", NAME, FILE]`: runs it, and writes the arrays that are compared to an .npz file;
- `["time", NAME, N]`: runs it N times; mean seconds of wall and CPU time;
- `["memory", NAME]`: runs it; by how many bytes the process grew meanwhile;
- `["clear"]`: forgets all arms.
"""

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.timing import environment


@dataclass(frozen=True)
class Arm:
    """One way to do the work.

    Args:
        run: Does the work once and returns when it is done.
        result: Does it and returns what is compared.
        packages: Distributions whose versions belong to the row.
    """

    run: Callable[[], Any]
    result: Callable[[], dict[str, np.ndarray]]
    packages: tuple[str, ...]


def main() -> None:
    """Serves until standard input ends."""
    # What frameworks print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    arms: dict[str, Arm] = {}
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        answer = _COMMANDS[command](arms, *arguments)
        print(json.dumps(answer), file=answers, flush=True)


def _build(arms: dict[str, Arm], name: str, path: str, arguments: dict[str, Any]) -> dict[str, str]:
    module, function = path.split(":")
    arms[name] = getattr(importlib.import_module(module), function)(**arguments)
    arms[name].run()
    return environment(*arms[name].packages)


def _result(arms: dict[str, Arm], name: str, path: str) -> None:
    arrays: dict[str, Any] = arms[name].result()
    np.savez(path, **arrays)


def _time(arms: dict[str, Arm], name: str, runs: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(runs):
        arms[name].run()
    return {
        "wall": (time.perf_counter() - wall) / runs,
        "cpu": (time.process_time() - cpu) / runs,
    }


def _memory(arms: dict[str, Arm], name: str) -> int:
    gc.collect()
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak counts from here
    arms[name].run()
    return _status("VmHWM") - before


def _clear(arms: dict[str, Arm]) -> None:
    arms.clear()
    gc.collect()


_COMMANDS: dict[str, Callable[..., Any]] = {
    "build": _build,
    "result": _result,
    "time": _time,
    "memory": _memory,
    "clear": _clear,
}


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()

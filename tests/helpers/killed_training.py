"""The trainer's command in a process that kills itself with SIGKILL, or sends itself SIGTERM.

    python -m tests.helpers.killed_training POINT FLAGS…

POINT is `steps:N`, a little after the N-th block of steps has begun and before the next one;
`terminate:N`, SIGTERM as that block begins; or `FUNCTION:NAME:N`, at the N-th call of a function
of `trainers/utils/files.py` whose path has NAME in it. A write is killed when it has written a
half.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from trainers import train
from trainers.configuration.configuration import parse_config_flag
from trainers.steps.train_step import TrainStep
from trainers.utils import cli
from trainers.utils import files


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_later() -> None:
    threading.Timer(0.001, _die).start()


def _never_return() -> None:
    threading.Event().wait()


def _terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def _end_in_steps(number: int, end: Callable[[], None], then: Callable[[], None]) -> None:
    run = TrainStep.run
    calls = []

    def ending(self: TrainStep, *arguments: Any) -> dict[str, float]:
        calls.append(arguments)
        if len(calls) == number:
            end()
            sums = run(self, *arguments)
            then()
            return sums
        return run(self, *arguments)

    setattr(TrainStep, "run", ending)  # noqa: B010


def _die_in_file(function: str, name: str, number: int) -> None:
    original = getattr(files, function)
    calls = []

    def dying(path: Any, *rest: Any) -> None:
        if name in os.path.basename(path):
            calls.append(path)
        if len(calls) == number:
            for payload in rest:
                if isinstance(payload, bytes):
                    original(path, payload[: len(payload) // 2])
            _die()
        original(path, *rest)

    setattr(files, function, dying)


def main(point: str, arguments: list[str]) -> None:
    """Prepares the kill and runs the command."""
    kind, *name, number = point.split(":")
    if kind == "steps":
        _end_in_steps(int(number), _die_later, _never_return)
    elif kind == "terminate":
        _end_in_steps(int(number), _terminate, lambda: None)
    else:
        _die_in_file(kind, *name, int(number))
    sys.argv = ["train", *arguments]
    train.define_flags()
    cli.run(train.main, parse_config_flag)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

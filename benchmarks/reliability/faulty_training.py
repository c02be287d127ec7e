"""The training command with one fault that comes at a chosen moment.

    python -m benchmarks.reliability.faulty_training FAULT FLAGS…

FAULT is one of

- `signal:NUMBER:TIMES:PLACE:N`: a signal, once or twice, at the N-th `step` (a block of them),
  `evaluation` or `save`;
- `full:N`, `read-only:N`: from the N-th checkpoint's arrays on nothing can be written any more;
- `limit:N`: the same by the system's limit of a file's size;
- `removed:N`: the work directory is removed as the N-th block of steps begins;
- `bad:VALUE:WHERE:K`: `nan` or `inf` in the `input`, `loss` or `gradient` of step K, from 1.
"""

import errno
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from keras import ops

from benchmarks.reliability.crash_points import HalvedWrites
from trainers import train
from trainers.checkpointing import store
from trainers.configuration.configuration import parse_config_flag
from trainers.evaluation.evaluator import Evaluator
from trainers.steps.train_step import TrainStep
from trainers.utils import cli
from trainers.utils import files

#: Where a fault can come: a function that is called there, and what it belongs to.
PLACES: dict[str, tuple[Any, str]] = {
    "step": (TrainStep, "run"),
    "evaluation": (Evaluator, "evaluate"),
    "save": (store, "write_checkpoint"),
}


def main(fault: str, arguments: list[str]) -> None:
    kind, *details = fault.split(":")
    faults: dict[str, Callable[..., None]] = {
        "signal": _signal,
        "full": _full,
        "read-only": _read_only,
        "limit": _limit,
        "removed": _removed,
        "bad": bad_numbers,
    }
    faults[kind](*details)
    sys.argv = ["train", *arguments]
    train.define_flags()
    cli.run(train.main, parse_config_flag)


def _at(place: str, number: int, act: Callable[[], None]) -> None:
    """Acts as the n-th call of a place begins."""
    owner, name = PLACES[place]
    original = getattr(owner, name)
    calls = []

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == number:
            act()
        return original(*arguments, **options)

    setattr(owner, name, call)


def _signal(number: str, times: str, place: str, count: str) -> None:
    def act() -> None:
        def again() -> None:
            # Not before the line that says what a second one does: until the block of compiled
            # operations that is running ends, Python counts two signals for one.
            while signal.getsignal(int(number)) is not signal.SIG_DFL:
                time.sleep(0.001)
            os.kill(os.getpid(), int(number))

        if times == "2":
            # From a thread: it comes while the call after this one is under way.
            threading.Thread(target=again, daemon=True).start()
        os.kill(os.getpid(), int(number))
        if times == "2":
            time.sleep(1)  # or what runs here would be over

    _at(place, int(count), act)


def _full(number: str) -> None:
    def no_space() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(path: Any, mode: str, *rest: Any) -> HalvedWrites:
        return HalvedWrites(open(path, mode, *rest), no_space)

    _at("save", int(number), lambda: setattr(files, "open", opened))


def _read_only(number: str) -> None:
    workdir = _workdir()

    def refusing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            if str(path).startswith(workdir):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
            return original(path, *rest, **options)

        return call

    def act() -> None:
        # Even who may write everywhere cannot write to a file system that takes nothing.
        setattr(files, "open", refusing(open))  # noqa: B010
        for name in ("makedirs", "replace", "remove"):
            setattr(os, name, refusing(getattr(os, name)))
        shutil.rmtree = refusing(shutil.rmtree)  # type: ignore[assignment]

    _at("save", int(number), act)


def _limit(number: str) -> None:
    # As Python does for SIGXFSZ, anyway: the write fails, the process does not die.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    _at("save", int(number), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard)))


def _removed(number: str) -> None:
    workdir = _workdir()
    _at("step", int(number), lambda: shutil.rmtree(workdir))


def _workdir() -> str:
    (workdir,) = (
        argument.partition("=")[2] for argument in sys.argv if argument.startswith("--workdir=")
    )
    return workdir


def bad_numbers(value: str, where: str, step: str) -> None:
    """Puts `nan` or `inf` into the `input`, `loss` or `gradient` of a step, counted from 1.

    It must be a step of one replica without gradient accumulation.
    """
    seeds, inputs, losses = TrainStep.seeds, TrainStep.inputs, TrainStep.losses
    number: list[Any] = [-1]

    def is_now() -> Any:
        return ops.equal(ops.cast(number[0], "int32"), int(step) - 1)

    def noting(self: TrainStep, stream: Any, dtype: str) -> Any:
        number[0] = stream
        return seeds(self, stream, dtype)

    def bad_inputs(self: TrainStep, images: Any) -> Any:
        good = inputs(self, images)
        return ops.where(is_now(), float(value), good)

    def bad_losses(self: TrainStep, targets: Any, logits: Any) -> Any:
        good = losses(self, targets, logits)
        if where == "loss":
            return ops.where(is_now(), float(value), good)
        # The root of 0 has the slope infinity, which becomes NaN where 0 is multiplied by it.
        weight = self.model.trainable_variables[-1]
        moving = ops.sum(weight - ops.stop_gradient(weight))
        slope = ops.where(is_now(), float(value == "inf"), 0.0)
        root = ops.sqrt(ops.where(is_now(), 0.0, 1.0) + slope * moving)
        return good + root - ops.stop_gradient(root)

    changed: dict[str, Any] = {"seeds": noting}
    changed |= {"inputs": bad_inputs} if where == "input" else {"losses": bad_losses}
    for name, function in changed.items():
        setattr(TrainStep, name, function)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Averages the training metrics over a logging interval, and measures the speed."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.data.bad_examples import BadExamples
from trainers.utils.errors import DivergedError
from trainers.utils.reporting import MetricsWriter

# Sums that a training row is computed from; the other one, a time, is not saved.
_SAVED_SUMS = ("loss", "correct", "num_examples", "gradient_norm")
_PREFIX = "log/"


@dataclasses.dataclass(eq=False)
class TrainingLog:
    """Averages the steps' sums over a logging interval and measures the speed.

    `learning_rate` is that of each step, counted from 0.

    Attributes:
        steps_per_second: Speed since the interval began, without evaluations and without blocks of
            steps that include a compilation. None if there is no other block.
        data_wait: Share of that time spent waiting for data, in [0, 1], or None.
    """

    writer: MetricsWriter
    learning_rate: Callable[[int], Any]
    batch_size: int
    bad_examples: BadExamples | None = None

    def __post_init__(self) -> None:
        self.steps_per_second: float | None = None
        self.data_wait: float | None = None
        self._clock = time.monotonic()
        self._reset()

    def add(self, sums: dict[str, float], num_steps: int, *, compiled: bool) -> None:
        """Adds the sums of some steps, whose time does not count if one was compiled in it.

        Raises:
            DivergedError: If one of the sums is not finite.
        """
        # Before anything is saved: no run could resume from a checkpoint of NaNs.
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(sums[name]):
                raise DivergedError(
                    f"The training has diverged: the {name.replace('_', ' ')} is {sums[name]}"
                )
        now = time.monotonic()
        if not compiled:
            self._seconds += now - self._clock
            self._timed_steps += num_steps
            self._waited += sums["data_wait"]
            self.steps_per_second = self._timed_steps / max(self._seconds, 1e-9)
            self.data_wait = self._waited / max(self._seconds, 1e-9)
        self._clock = now
        self._steps += num_steps
        for name in _SAVED_SUMS:
            self._sums[name] = self._sums.get(name, 0.0) + sums[name]

    def write(self, step: int) -> None:
        """Writes a row and starts the next interval."""
        metrics = {
            "loss": self._sums["loss"] / self._sums["num_examples"],
            "accuracy": self._sums["correct"] / self._sums["num_examples"],
            "gradient_norm": self._sums["gradient_norm"] / self._steps,
            # Of the last step of the interval; the first step of a training has number 0.
            "learning_rate": float(self.learning_rate(step - 1)),
        }
        if self.steps_per_second is not None and self.data_wait is not None:
            metrics["steps_per_second"] = self.steps_per_second
            metrics["images_per_second"] = self.steps_per_second * self.batch_size
            metrics["data_wait"] = self.data_wait
        if self.bad_examples and self.bad_examples.limit:
            metrics["bad_examples"] = self.bad_examples.count
        self.writer.write(step, "train", metrics)
        self._reset()

    def arrays(self) -> Arrays:
        """Returns the sums of the interval so far, for a checkpoint; no times."""
        sums = {name: np.array(self._sums.get(name, 0.0), np.float64) for name in _SAVED_SUMS}
        named = {**sums, "steps": np.array(self._steps, np.int64)}
        return {f"{_PREFIX}{name}": value for name, value in named.items()}

    def load(self, arrays: Arrays) -> None:
        """Restores the sums from a checkpoint's arrays, but not the times; ignores the others."""
        self._reset()
        for name in _SAVED_SUMS:
            self._sums[name] = float(arrays.get(f"{_PREFIX}{name}", 0.0))
        self._steps = int(arrays.get(f"{_PREFIX}steps", 0))

    def restart_clock(self) -> None:
        """Excludes the time of an evaluation or a checkpoint from the speed."""
        self._clock = time.monotonic()

    def _reset(self) -> None:
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._timed_steps = 0
        self._seconds = 0.0
        self._waited = 0.0
        self._clock = time.monotonic()

"""Saves, keeps and finds the checkpoints of one work directory.

A separate thread writes them. The training loop waits for a checkpoint only when the next one is
due, and gets its errors then.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.checkpoint_file import DamagedCheckpointError
from trainers.checkpointing.checkpoint_file import checkpoint_path
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.checkpoint_file import read_checkpoint
from trainers.checkpointing.checkpoint_file import read_manifest
from trainers.checkpointing.checkpoint_file import remove_checkpoint
from trainers.checkpointing.checkpoint_file import write_checkpoint
from trainers.configuration.checks import check_choice
from trainers.configuration.training_options import BEST_METRICS
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import explain_os_error
from trainers.utils.files import AnyPath


class CheckpointStore:
    """Saves and finds the checkpoints of one work directory.

    Exiting its context waits for a checkpoint that is still being written.

    Args:
        directory: Holds the checkpoints, on any file system of TensorFlow; created when needed.
        keep: How many of the newest stay.
        report: Called with a line when a damaged checkpoint is skipped.
        best_metric: A metric of the evaluation, one of `BEST_METRICS`: the checkpoint that was best
            by it stays as well. None keeps only the newest.
    """

    def __init__(
        self,
        directory: AnyPath,
        keep: int,
        report: Callable[[str], None] = print,
        best_metric: str | None = None,
    ) -> None:
        if keep < 1:
            raise ConfigurationError(f"keep_checkpoints must be at least 1. Got {keep}.")
        self.directory = directory
        self.keep = keep
        self.report = report
        self.best_metric = best_metric
        self._best = BestCheckpoint(directory, best_metric) if best_metric else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            # Only report this one: the error that ends the run must be the one raised.
            reason = explain_os_error(failure) if isinstance(failure, OSError) else failure
            self.report(f"the last checkpoint could not be written: {reason}")

    def steps(self) -> list[int]:
        """Returns the steps of all finished checkpoints, ascending, valid or not."""
        self.wait()
        return checkpoint_steps(self.directory)

    def is_best(self, step: int, metrics: dict[str, float]) -> bool:
        """Whether an evaluation is better by `best_metric` than all checkpoints before `step`.

        Raises:
            ConfigurationError: If `best_metric` is not among the metrics.
        """
        return self._best is not None and self._best.is_improved(step, metrics)

    def save(self, step: int, arrays: Arrays, metrics: dict[str, float] | None = None) -> None:
        """Starts writing a checkpoint, after which old ones are removed.

        Args:
            step: Steps done.
            arrays: Everything that the next step reads; they must not change any more.
            metrics: Of an evaluation at that step, if there was one.

        Raises:
            OSError: If the previous checkpoint could not be written.
        """
        self.wait()
        best = None
        if self._best is not None:
            self._best.note(step, metrics or {})
            best = self._best.step_before(step)
        self._writing = self._thread.submit(self._write, step, arrays, metrics, best)

    def wait(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
            OSError: If it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load(self, step: int) -> Arrays:
        """Returns the arrays of the checkpoint of a step.

        Raises:
            ConfigurationError: If there is none.
            DamagedCheckpointError: If it is damaged.
        """
        self._check_there(step)
        try:
            return read_checkpoint(self.directory, step)
        except DamagedCheckpointError as error:
            self._check_there(step)  # a running training may have removed it meanwhile
            path = checkpoint_path(self.directory, step)
            raise DamagedCheckpointError(f"checkpoint {path} is damaged: {error}") from error

    def load_newest(self) -> tuple[int, Arrays] | None:
        """Returns step and arrays of the newest valid checkpoint; None if there is none.

        A damaged one is reported and skipped. One that a running training removes meanwhile is not
        reported: that training has written a newer one first, so the list is read again.
        """
        passed_over: set[int] = set()
        while steps := [step for step in self.steps() if step not in passed_over]:
            step = steps[-1]
            try:
                return step, read_checkpoint(self.directory, step)
            except DamagedCheckpointError as error:
                passed_over.add(step)
                if step in self.steps():
                    path = checkpoint_path(self.directory, step)
                    self.report(f"checkpoint {path} is damaged, skipped: {error}")
        return None

    def _check_there(self, step: int) -> None:
        steps = self.steps()
        if step not in steps:
            raise ConfigurationError(
                f"{self.directory} has no checkpoint of step {step}. It has: "
                f"{', '.join(map(str, steps)) or 'none'}."
            )

    def _write(
        self, step: int, arrays: Arrays, metrics: dict[str, float] | None, best: int | None
    ) -> None:
        write_checkpoint(self.directory, step, arrays, metrics)
        # Later ones are damaged, or the run would have resumed from them.
        older = [other for other in checkpoint_steps(self.directory) if other <= step]
        for old in older[: -self.keep]:
            if old != best:
                remove_checkpoint(self.directory, old)


class BestCheckpoint:
    """Remembers the best checkpoint; the manifests keep it for the run after a kill.

    Of two that are equally good the earlier one stays the best. A metric that is not finite is
    never the best.
    """

    def __init__(self, directory: AnyPath, metric: str) -> None:
        check_choice("keep_best_metric", metric, tuple(BEST_METRICS))
        self.directory = directory
        self.metric = metric
        self._value = -math.inf
        self._step: int | None = None
        self._has_looked = False

    def step_before(self, step: int) -> int | None:
        """Returns the step of the best checkpoint before a step; None without one.

        The manifests are read at the first call, before this run writes its own.
        """
        if not self._has_looked:
            self._has_looked = True
            # Later ones are damaged, or the run would have resumed from them.
            for other in (s for s in checkpoint_steps(self.directory) if s < step):
                self._note(other, self._recorded(other))
        return self._step

    def is_improved(self, step: int, metrics: dict[str, float]) -> bool:
        """Whether an evaluation is better than those of all checkpoints before `step`."""
        if self.metric not in metrics:
            raise ConfigurationError(
                f"keep_best_metric={self.metric!r} is not among the metrics of the "
                f"evaluation: {', '.join(metrics)}."
            )
        self.step_before(step)
        return self._rank(metrics) > self._value

    def note(self, step: int, metrics: dict[str, float]) -> None:
        """Records the evaluation of a checkpoint that is being saved."""
        self.step_before(step)
        self._note(step, self._rank(metrics))

    def _note(self, step: int, value: float) -> None:
        if value > self._value:
            self._value, self._step = value, step

    def _recorded(self, step: int) -> float:
        try:
            return self._rank(read_manifest(self.directory, step)["metrics"])
        except DamagedCheckpointError:
            return -math.inf

    def _rank(self, metrics: dict[str, float]) -> float:
        """Returns a number that is larger for a better evaluation."""
        value = float(metrics.get(self.metric, math.nan))
        if not math.isfinite(value):
            return -math.inf
        return value if BEST_METRICS[self.metric] else -value

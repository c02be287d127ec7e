"""Saves, keeps and finds the checkpoints of one work directory."""

import dataclasses
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
from trainers.configuration.training_options import BEST_METRICS
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import explain_os_error
from trainers.utils.files import AnyPath


@dataclasses.dataclass(eq=False)
class CheckpointStore:
    """Saves and finds the checkpoints of one work directory.

    A separate thread writes them. The training loop waits for a checkpoint only when the next one
    is due, and gets its errors then. Exiting the context of the store waits as well.

    Args:
        directory: Holds the checkpoints, on any file system of TensorFlow; created when needed.
        keep: How many of the newest stay, at least 1.
        report: Called with a line when a damaged checkpoint is skipped.
        best_metric: One of `BEST_METRICS`: the checkpoint that was best by it stays as well. None
            keeps only the newest.
    """

    directory: AnyPath
    keep: int
    report: Callable[[str], None] = print
    best_metric: str | None = None

    def __post_init__(self) -> None:
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

        A metric that is not finite is never the best.

        Raises:
            ConfigurationError: If `best_metric` is not among the metrics.
        """
        if self.best_metric is None:
            return False
        if self.best_metric not in metrics:
            raise ConfigurationError(
                f"keep_best_metric={self.best_metric!r} is not among the metrics of the "
                f"evaluation: {', '.join(metrics)}."
            )
        # Later ones are damaged, or the run would have resumed from them.
        before = [other for other in self.steps() if other < step]
        return _rank(metrics, self.best_metric) > self._best(before, self.best_metric)[0]

    def save(self, step: int, arrays: Arrays, metrics: dict[str, float] | None = None) -> None:
        """Starts writing a checkpoint, after which old ones are removed.

        The arrays must not change any more. `metrics` are those of an evaluation at that step.

        Raises:
            OSError: If the previous checkpoint could not be written.
        """
        self.wait()
        self._writing = self._thread.submit(self._write, step, arrays, metrics)

    def wait(self) -> None:
        """Waits until the last checkpoint is written; raises OSError if it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load(self, step: int) -> Arrays:
        """Returns the arrays of the checkpoint of a step.

        Raises:
            ConfigurationError: If there is none.
            DamagedCheckpointError: If it is damaged.
        """
        self.wait()
        try:
            return read_checkpoint(self.directory, step)
        except DamagedCheckpointError as error:
            steps = self.steps()
            if step not in steps:  # a running training may have removed it meanwhile
                raise ConfigurationError(
                    f"{self.directory} has no checkpoint of step {step}. It has: "
                    f"{', '.join(map(str, steps)) or 'none'}."
                ) from None
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

    def _write(self, step: int, arrays: Arrays, metrics: dict[str, float] | None) -> None:
        write_checkpoint(self.directory, step, arrays, metrics)
        # Later ones are damaged, or the run would have resumed from them.
        saved = [other for other in checkpoint_steps(self.directory) if other <= step]
        best = self._best(saved, self.best_metric)[1] if self.best_metric else None
        for old in saved[: -self.keep]:
            if old != best:
                remove_checkpoint(self.directory, old)

    def _best(self, steps: list[int], metric: str) -> tuple[float, int | None]:
        """Returns rank and step of the best checkpoint, of equally good ones the earliest.

        The manifests hold the metrics, so the run after a kill knows them as well.
        """
        best = -math.inf
        best_step: int | None = None
        for step in steps:
            try:
                rank = _rank(read_manifest(self.directory, step)["metrics"], metric)
            except DamagedCheckpointError:
                continue
            if rank > best:
                best, best_step = rank, step
        return best, best_step


def _rank(metrics: dict[str, float], metric: str) -> float:
    """Returns a number that is larger for a better evaluation."""
    value = float(metrics.get(metric, math.nan))
    if not math.isfinite(value):
        return -math.inf
    return value if BEST_METRICS[metric] else -value

"""Which checkpoint was the best by a metric of the evaluation."""

import math

from trainers.checkpoint_files import DamagedCheckpointError
from trainers.checkpoint_files import checkpoint_steps
from trainers.checkpoint_files import read_manifest
from trainers.configuration.checks import BEST_METRICS
from trainers.configuration.checks import check_best_metric
from trainers.utils.errors import ConfigurationError
from trainers.utils.files import AnyPath


class BestCheckpoint:
    """Remembers the best checkpoint; the manifests keep it for the run after a kill.

    Of two that are equally good the earlier one stays the best. A metric that is not
    finite is never the best.

    Args:
        directory: Holds the checkpoints.
        metric: One of `BEST_METRICS`.

    Raises:
        ConfigurationError: If the metric is none of them.
    """

    def __init__(self, directory: AnyPath, metric: str) -> None:
        check_best_metric(metric)
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
            # Later ones are damaged, or the run would have gone on from there.
            for other in (s for s in checkpoint_steps(self.directory) if s < step):
                self._note(other, self._recorded(other))
        return self._step

    def is_improved(self, step: int, metrics: dict[str, float]) -> bool:
        """Whether an evaluation is better than those of all checkpoints before it.

        Args:
            step: Where it was done.
            metrics: Its metrics.

        Raises:
            ConfigurationError: If the metric is not among them.
        """
        if self.metric not in metrics:
            raise ConfigurationError(
                f"keep_best_metric={self.metric!r} is not among the metrics of the "
                f"evaluation: {', '.join(metrics)}."
            )
        self.step_before(step)
        return self._rank(metrics) > self._value

    def note(self, step: int, metrics: dict[str, float]) -> None:
        """Takes in the evaluation of a checkpoint that is being saved."""
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

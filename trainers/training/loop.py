"""Runs the steps of a training: rows of metrics, evaluations and checkpoints between them."""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from trainers.checkpointing.state import training_arrays
from trainers.checkpointing.store import CheckpointStore
from trainers.configuration.schedule import TrainingSchedule
from trainers.data.sources import Source
from trainers.engines.hosts import Hosts
from trainers.evaluation.evaluator import Evaluator
from trainers.steps.train_step import TrainStep
from trainers.training.log import TrainingLog
from trainers.training.non_finite import check_finite
from trainers.training.profiling import StepProfiler
from trainers.utils.errors import Interrupted
from trainers.utils.reporting import MetricsWriter
from trainers.utils.reporting import ProgressLine
from trainers.utils.reporting import format_metrics
from trainers.utils.signals import StopRequest

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class TrainingLoop:
    """The steps of a training, in blocks that end where something is due.

    Attributes:
        steps_per_loop: Steps of a block, at most.
        eval_sources: By name; the best checkpoint is best by the first.
        hosts: Processes that train together; the chief saves.
        explain: Called with the steps done and the length of a block; returns a context that
            explains what fails in the block.
    """

    schedule: TrainingSchedule
    steps_per_loop: int
    train_step: TrainStep
    evaluator: Evaluator
    eval_sources: Mapping[str, Source]
    store: CheckpointStore
    hosts: Hosts
    stop: StopRequest
    profiler: StepProfiler
    log: TrainingLog
    writer: MetricsWriter
    progress: ProgressLine
    explain: Callable[[int, int], AbstractContextManager[Any]]

    def run(self, batches: Iterator[Any], step: int) -> None:
        """Trains to the end on the batches after `step`, the steps done before.

        Raises:
            DataError: If an example cannot be read.
            TrainingError: If the training has diverged.
            Interrupted: If a signal came; the checkpoint is saved.
        """
        while step < self.schedule.total:
            step = self._run_block(batches, step)
            if self.schedule.due(step, self.schedule.log):
                self.log.write(step)
            due = self.schedule.due(step, self.schedule.evaluate)
            metrics = self._evaluate(step) if due else None
            self._save_if_due(step, metrics)

    def _run_block(self, batches: Iterator[Any], step: int) -> int:
        """Runs the steps up to the next event; returns the steps done."""
        self.profiler.update(step)
        num_steps = self.schedule.steps_to_event(step, self.steps_per_loop)
        num_steps = self.profiler.limit(step, num_steps)
        self.log.restart_clock()
        with self.explain(step, num_steps):
            sums = self.train_step.run(batches, step, num_steps)
            self.log.add(sums, num_steps, compiled=self.train_step.has_compiled)
        self.progress.update(step + num_steps, self.log.steps_per_second, self.log.data_wait)
        return step + num_steps

    def _evaluate(self, step: int) -> Metrics:
        """Evaluates every set; returns the metrics of the first."""
        results = {}
        for name, source in self.eval_sources.items():
            results[name] = self.evaluator.evaluate(source)
            self.writer.write(step, name, results[name])
            self.progress.log(f"step {step}: {name} {format_metrics(results[name])}")
        return next(iter(results.values()))

    def _save_if_due(self, step: int, metrics: Metrics | None) -> None:
        """Saves a checkpoint if one is due, the best so far, or the last before a stop."""
        stopped = self.hosts.max(self.stop.signal_number or 0)
        if self.hosts.is_chief:
            best = metrics is not None and self.store.is_best(step, metrics)
            if stopped or best or self.schedule.due(step, self.schedule.checkpoint):
                self._save(step, metrics)
        if stopped:
            self.store.wait()
            self.hosts.barrier()
            raise Interrupted(
                f"stopped by signal {stopped} at step {step}; the checkpoint is saved, "
                "the same command resumes from there",
                stopped,
            )

    def _save(self, step: int, metrics: Metrics | None) -> None:
        # A checkpoint assumes that the rows before it are on the disk.
        self.writer.fsync()
        arrays = training_arrays(self.train_step, self.log.arrays(), step)
        check_finite(arrays, step)
        self.store.save(step, arrays, metrics)

"""The runs of `benchmarks.value`, and their rows in the committed results."""

import threading
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import Row
from benchmarks.timing import environment
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv
from benchmarks.value_tasks import ABLATIONS
from benchmarks.value_tasks import LEARNING_RATES
from benchmarks.value_tasks import TASKS
from benchmarks.value_tasks import Arm
from benchmarks.value_tasks import Task

#: Shares of the maps' mass on the object, of all tokens and of the best, and of the object's area.
ATTENTION_FIGURES = (
    "attention on the object",
    "attention of the best token on the object",
    "object in the frame",
)


@dataclass(frozen=True)
class Run:
    """A training of one model: to choose its learning rate, or to judge it."""

    task: Task
    arm: Arm
    seed: int
    learning_rate: float
    steps: int

    @property
    def chooses(self) -> bool:
        return self.steps < self.task.steps

    @property
    def split(self) -> str:
        """What it is judged on; the test only by the runs that the study is about."""
        return "validation" if self.chooses or self.task is ABLATIONS else "test"

    @property
    def key(self) -> Row:
        """The values of the columns that tell its rows from those of other runs."""
        return {
            "task": self.task.name,
            "model": self.arm.model,
            "steps": str(self.steps),
            "seed": str(self.seed),
            "learning_rate": f"{self.learning_rate:g}",
        }

    @property
    def folder(self) -> str:
        return "/".join(self.key.values()).replace(" ", "_")


class Results:
    """The rows of the files, which are written after each run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, list[dict[str, Any]]] = {
            name: [*read_csv(name)] for name in ("value", "value_details", "value_ablations")
        }

    def has(self, run: Run) -> bool:
        return any(run.key.items() <= row.items() for row in self._rows["value_details"])

    def add(self, run: Run, cpu_seconds: float, figures: dict[str, float], macs: int) -> None:
        """Adds what a run has measured: its accuracies by split, and other figures."""
        with self._lock:
            if not run.chooses:
                row = {
                    "task": run.task.name,
                    "family": run.arm.family,
                    "model": run.arm.model,
                    "million_macs": f"{macs / 1e6:.2f}",
                    "inference_ms": "",
                    "train_cpu_seconds": f"{cpu_seconds:.0f}",
                    "steps": run.steps,
                    "seed": run.seed,
                    "split": run.split,
                    "metric": "accuracy",
                    "value": f"{figures[run.split]:.4f}",
                }
                self._write("value_ablations" if run.task is ABLATIONS else "value", [row])
            rows = [
                {**run.key, "figure": name, "value": f"{value:.4f}"}
                | environment("tensorflow", "keras")
                for name, value in {**figures, "cpu_seconds": cpu_seconds}.items()
            ]
            self._write("value_details", rows)

    def _write(self, name: str, more: list[dict[str, Any]]) -> None:
        self._rows[name] += more
        write_csv(name, self._rows[name])

    def learning_rate(self, task: Task, arm: Arm) -> float:
        """Returns the rate that was best on validation; of equal ones the first."""
        name, model = task.rate_of or (task.name, arm.model)
        steps = TASKS[name].choosing_steps
        found = {
            float(row["learning_rate"]): float(row["value"])
            for row in self._rows["value_details"]
            if (row["task"], row["model"], row["figure"]) == (name, model, "validation")
            and int(row["steps"]) == steps
        }
        return max(LEARNING_RATES, key=lambda rate: found[rate])

    def set_inference(self, task: str, milliseconds: dict[str, float]) -> None:
        for row in self._rows["value"]:
            if row["task"] == task:
                row["inference_ms"] = f"{milliseconds[row['model']]:.3f}"
        self._write("value", [])

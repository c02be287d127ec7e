"""A store with three small checkpoints."""

from pathlib import Path

import numpy as np

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.store import CheckpointStore


def small_arrays(value: float = 1.0) -> Arrays:
    """Returns the arrays of a small checkpoint."""
    return {
        "model/kernel": np.full((3, 4), value, np.float32),
        "model/bias": np.array([np.nan, -0.0, 1e-40], np.float32),
        "optimizer/iterations": np.array(7, np.int64),
    }


class ThreeCheckpoints:
    """A store with checkpoints 1, 2, 3, that collects its reports.

    Args:
        folder: Holds the directory of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.reports: list[str] = []
        self.folder = folder / "checkpoints"
        self.store = CheckpointStore(self.folder, 9, self.reports.append)
        for step in (1, 2, 3):
            self.store.save(step, small_arrays(step))
        self.store.wait()

    def path(self, step: int) -> Path:
        """Returns the directory of a checkpoint."""
        return self.folder / f"step_{step:08d}"

    def newest(self) -> int | None:
        """Returns the step of the newest checkpoint that is whole."""
        found = self.store.load_newest()
        return None if found is None else found[0]

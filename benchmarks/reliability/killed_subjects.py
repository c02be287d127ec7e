"""What is killed: the training command on images and videos, and Keras' own callback."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from trainers.utils.reporting import read_metrics

#: Steps between two checkpoints, of all of them.
INTERVAL = 4
_CONFIGS = Path(__file__).parents[2] / "trainers" / "configs"
_COMMON = (
    "--strategy=one_device",
    # Intervals without a common divisor: most checkpoints come in the midst of a row.
    "--config.log_steps=7",
    f"--config.checkpoint_steps={INTERVAL}",
    "--config.eval_steps=55",
    "--config.keep_best_metric=accuracy",
    "--config.model.dropout=0.1",
    "--config.data.mixup_alpha=0.2",
    "--config.ema_decay=0.9",
)
_KINDS = {
    "image": (f"--config={_CONFIGS / 'digits.py'}",),
    "video": (
        f"--config={_CONFIGS / 'demo_video.py'}",
        "--config.batch_size=8",
        "--config.model.name=vivit_ti8x4_d2_tl4at1",
        "--config.model.width=24",
        "--config.model.mlp_dim=48",
    ),
}
#: Parts of metrics.jsonl that are no function of the configuration.
TIMES = {"steps_per_second", "images_per_second", "data_wait"}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A training that can be killed and started again.

    Attributes:
        kind: `image` or `video`.
        engine: `tensorflow`, `jax`, or `BackupAndRestore` of Keras on TensorFlow.
        total_steps: Its length.
    """

    kind: str
    engine: str
    total_steps: int

    @property
    def name(self) -> str:
        """A name for its folder."""
        return f"{self.kind}_{self.engine}"

    @property
    def is_ours(self) -> bool:
        """Whether it is the training command."""
        return self.engine != "BackupAndRestore"

    def start(self, workdir: Path) -> "subprocess.Popen[bytes]":
        """Starts it, or lets it go on."""
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        if self.is_ours:
            command = ["trainers.train", *_KINDS[self.kind], *_COMMON, f"--engine={self.engine}"]
            command += [f"--config.total_steps={self.total_steps}", f"--workdir={workdir}"]
            environment["KERAS_BACKEND"] = self.engine
        else:
            command = ["benchmarks.reliability.backup_and_restore", str(workdir)]
            command += [str(self.total_steps), str(INTERVAL)]
        # What it says is of interest only if it fails by itself.
        workdir.mkdir(parents=True, exist_ok=True)
        with open(workdir.with_suffix(".log"), "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command], stdout=log, stderr=log, env=environment
            )

    def last_row(self, workdir: Path) -> int:
        """Returns the last step that is known to be done."""
        rows = read_metrics(workdir / "metrics.jsonl")
        return int(rows[-1]["step"]) if rows else 0

    def resumed_at(self, workdir: Path) -> int | None:
        """Returns where the latest start has gone on; None if it has not come that far."""
        for line in workdir.with_suffix(".log").read_text(errors="replace").splitlines():
            if line.startswith("resuming at step "):
                return int(line.split()[-1])
        # Of a training that begins anew, the model is described and then trained.
        text = workdir.with_suffix(".log").read_text(errors="replace")
        return 0 if " MACs a" in text or not self.is_ours else None

    def end(self, workdir: Path) -> list[str]:
        """Returns what a finished run has come to: lines with checksums, and rows."""
        if not self.is_ours:
            return [(workdir / "weights.sha256").read_text()]
        rows = read_metrics(workdir / "metrics.jsonl")
        kept = [str({name: row[name] for name in sorted(row.keys() - TIMES)}) for row in rows]
        return [*self.checkpoints(workdir), *kept]

    def checkpoints(self, workdir: Path) -> list[str]:
        """Returns the lines of `python -m trainers.checkpoints`; none without checkpoints."""
        if not self.is_ours or not any((workdir / "checkpoints").glob("step_*")):
            return []
        command = [sys.executable, "-m", "trainers.checkpoints", f"--workdir={workdir}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()


SUBJECTS = (
    Subject("image", "tensorflow", 300),
    Subject("image", "jax", 300),
    Subject("video", "tensorflow", 150),
    Subject("video", "jax", 150),
    Subject("image", "BackupAndRestore", 300),
)

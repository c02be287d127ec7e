"""Writes metrics (JSON lines, TensorBoard), progress and warnings."""

import contextlib
import itertools
import json
import struct
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.progress import TimeRemainingColumn

from trainers.utils import files
from trainers.utils.files import AnyPath


class MetricsWriter:
    """Appends to metrics.jsonl and TensorBoard; drops what a killed run wrote past `first_step`."""

    def __init__(self, workdir: AnyPath, first_step: int) -> None:
        self.path = files.join(workdir, "metrics.jsonl")
        self._folder = files.join(workdir, "tensorboard")
        self._drop_rows_after(first_step)
        self._drop_points_after(first_step)
        import tensorflow as tf  # seconds: worker processes import this module

        self._tensorboard = tf.summary.create_file_writer(self._folder)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes one row: the step, the split and its metrics."""
        import tensorflow as tf

        row = {"step": step, "split": split, **metrics}
        files.append(self.path, f"{json.dumps(row)}\n".encode())
        with files.as_os_error(self._folder):
            with self._tensorboard.as_default(step=step):
                for name, value in metrics.items():
                    tf.summary.scalar(f"{split}/{name}", value)
            self._tensorboard.flush()

    def fsync(self) -> None:
        """Forces the rows to disk; a checkpoint saved later assumes that they are there."""
        if files.exists(self.path):
            files.fsync(self.path)

    def close(self) -> None:
        """Forces the rows to disk and closes TensorBoard's file."""
        self.fsync()
        with files.as_os_error(self._folder):
            self._tensorboard.close()

    def _drop_rows_after(self, step: int) -> None:
        kept = [row for row in read_metrics(self.path) if row["step"] <= step]
        if files.exists(self.path):
            text = "".join(json.dumps(row) + "\n" for row in kept)
            files.write_atomically(self.path, text.encode())

    def _drop_points_after(self, step: int) -> None:
        for name in files.list_names(self._folder):
            path = files.join(self._folder, name)
            if name.startswith(files.PARTIAL):
                files.remove(path)  # left by a kill at this point; TensorBoard would read it
            elif name.startswith("events."):
                before = files.read(path)
                records = _event_records(before)
                kept = [record for record, at_step in records if at_step <= step]
                if len(after := b"".join(kept)) < len(before):
                    files.write_atomically(path, after)


def _event_records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields each whole record of an event file, as stored, and its step."""
    import tensorflow as tf

    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)  # its checksum follows: 4 bytes
        end = start + 12 + length + 4  # 4: the checksum of the event
        if end > len(content):
            return  # cut off by a kill
        event = tf.compat.v1.Event.FromString(content[start + 12 : end - 4])
        yield content[start:end], event.step
        start = end


def read_metrics(path: AnyPath) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.jsonl, without a line cut off by a kill."""
    if not files.exists(path):
        return []
    rows = []
    for line in files.read(path).decode(errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


class ProgressLine:
    """Shows a live line with speed, time left and waiting; off a terminal, plain lines.

    `batch_size` is the global one; `unit` is what a batch is made of, "images" or "clips".
    """

    def __init__(
        self, total_steps: int, first_step: int, batch_size: int, unit: str = "images"
    ) -> None:
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.unit = unit
        self.console = Console(soft_wrap=True)
        self._lines = _PlainLines(15, sys.stdout)
        self._live: Progress | None = None
        if self.console.is_terminal:
            self._live = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._live.add_task(
                "training",
                total=total_steps,
                completed=first_step,
                text="compiling the first step",
            )

    def __enter__(self) -> "ProgressLine":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def log(self, text: str) -> None:
        """Prints a line above the live one."""
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)

    def update(self, step: int, steps_per_second: float | None, data_wait: float | None) -> None:
        """Shows the steps done, their speed and the share of time that they waited for data.

        Speed and share are of recent steps; None: not known yet.
        """
        text, left = "compiled", ""
        if steps_per_second is not None and data_wait is not None:
            text = (
                f"{steps_per_second:.1f} steps/s, {steps_per_second * self.batch_size:.0f} "
                f"{self.unit}/s, waiting for data {data_wait:.0%}"
            )
            seconds = (self.total_steps - step) / max(steps_per_second, 1e-9)
            left = f", {seconds:.0f} s left"
        if self._live is not None:
            self._live.update(self._task, completed=step, text=text)
        else:
            line = f"step {step}/{self.total_steps}, {text}{left}"
            self._lines.write(line, always=step == self.total_steps)


def format_metrics(metrics: dict[str, float]) -> str:
    """Formats metrics for people: `accuracy 0.871, loss 0.482`."""
    parts = []
    for name, value in metrics.items():
        number = str(value) if isinstance(value, int) else f"{value:.4g}"
        parts.append(f"{name.replace('_', ' ')} {number}")
    return ", ".join(parts)


def log_to_stderr(text: str) -> None:
    """Prints a warning for a person, apart from the results on stdout."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(description: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Shows a bar on a terminal, a line about every ten seconds elsewhere.

    Yields a function to call after each item, from any thread; `done` of them are finished already.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        numbers = itertools.count(done)
        lines = _PlainLines(10, sys.stderr)

        def advance() -> None:
            number = next(numbers)
            line = f"{description}: {number} of {total}"
            lines.write(line, always=number in (done, total))

        advance()
        yield advance
        return
    columns = (
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda: progress.advance(task)


class _PlainLines:
    """Progress for logs: a line after so many seconds at the earliest."""

    def __init__(self, seconds: float, stream: TextIO) -> None:
        self._seconds = seconds
        self._stream = stream
        self._last_line = time.monotonic()

    def write(self, line: str, always: bool) -> None:
        now = time.monotonic()
        if always or now - self._last_line >= self._seconds:
            self._last_line = now
            print(line, file=self._stream, flush=True)

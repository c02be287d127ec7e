"""Runs commands in worker processes, a progress bar in front.

Plain subprocesses rather than `multiprocessing`: a spawned worker would import the
caller's main program (and TensorFlow with it), and the game engine needs a working
directory and an output stream of its own.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainers.errors import DataError

MAXIMUM_WORKERS = 8
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Job:
    """One run of a module.

    Attributes:
        name: shown in progress lines and error messages.
        module: started as `python -m module`.
        arguments: its command line.
    """

    name: str
    module: str
    arguments: tuple[str, ...]


@dataclass
class _RunningJob:
    job: Job
    process: subprocess.Popen[bytes]
    output: IO[bytes]


def default_workers() -> int:
    """Counts the cores this process may use.

    Returns:
        The number of worker processes, 1 to 8.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(MAXIMUM_WORKERS, cores))


def run_jobs(jobs: Sequence[Job], description: str, workers: int) -> None:
    """Runs every job to its end, at most `workers` at a time.

    Args:
        jobs: started in this order.
        description: the words before the progress bar.
        workers: number of processes alive at once, at least 1.

    Raises:
        DataError: a job failed; the message holds the end of its output.
    """
    waiting = list(reversed(jobs))
    running: list[_RunningJob] = []
    with (
        tempfile.TemporaryDirectory(prefix="tokenlearner-") as scratch,
        _progress(description, len(jobs)) as advance,
    ):
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(_start(waiting.pop(), Path(scratch)))
                time.sleep(POLL_SECONDS)
                for worker in [w for w in running if w.process.poll() is not None]:
                    running.remove(worker)
                    _check(worker)
                    advance()
        finally:
            for worker in running:
                _stop(worker)


def _start(job: Job, scratch: Path) -> _RunningJob:
    # The engine makes `./_vizdoom/`; two workers in one directory race for it.
    directory = Path(tempfile.mkdtemp(dir=scratch))
    output = (directory / "output.txt").open("w+b")
    process = subprocess.Popen(
        [sys.executable, "-m", job.module, *job.arguments],
        cwd=directory,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return _RunningJob(job, process, output)


def _stop(worker: _RunningJob) -> None:
    # The engine is a child of the worker and would outlive it: end the whole group.
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
    else:
        worker.process.kill()
    worker.process.wait()
    worker.output.close()


def _environment() -> dict[str, str]:
    project = Path(__file__).resolve().parents[2]
    paths = [str(project), *(os.path.abspath(entry) for entry in sys.path if entry)]
    single_threaded = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    return {**os.environ, **single_threaded, "PYTHONPATH": os.pathsep.join(paths)}


def _check(worker: _RunningJob) -> None:
    with worker.output as output:
        if worker.process.returncode == 0:
            return
        output.seek(0)
        text = output.read().decode(errors="replace").strip()
    raise DataError(
        f"Worker {worker.job.name!r} ({worker.job.module}) ended with status "
        f"{worker.process.returncode}, expected 0. The end of its output:\n"
        f"{text[-2000:] or '(nothing)'}"
    )


@contextlib.contextmanager
def _progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows a bar on a terminal, a line about every ten seconds elsewhere."""
    try:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn
        from rich.progress import Progress
        from rich.progress import TimeElapsedColumn
    except ImportError:
        yield _PlainLines(description, total).advance
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(description, total).advance
        return
    columns = (
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)


class _PlainLines:
    """Progress for logs: few lines, each complete."""

    seconds_between_lines = 10.0

    def __init__(self, description: str, total: int) -> None:
        self._description = description
        self._total = total
        self._done = 0
        self._last_line = time.monotonic()
        self._write()

    def advance(self) -> None:
        self._done += 1
        waited = time.monotonic() - self._last_line
        if self._done == self._total or waited >= self.seconds_between_lines:
            self._write()

    def _write(self) -> None:
        self._last_line = time.monotonic()
        line = f"{self._description}: {self._done} of {self._total}"
        print(line, file=sys.stderr, flush=True)

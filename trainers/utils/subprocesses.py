"""Runs commands in worker processes, with a progress bar.

Not by `multiprocessing`: a spawned worker would import the caller's main program, and TensorFlow
with it, and the game engine needs its own working directory and output stream.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.utils.errors import DataError
from trainers.utils.reporting import progress_bar

_MAXIMUM_WORKERS = 8
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Job:
    """One run of `python -m module` with arguments; `name` is for progress lines and messages."""

    name: str
    module: str
    arguments: tuple[str, ...]


@dataclass
class _RunningJob:
    job: Job
    process: subprocess.Popen[bytes]
    output: Path


def default_workers() -> int:
    """Returns the number of cores this process may use, at most 8."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(_MAXIMUM_WORKERS, cores)


def run_jobs(jobs: Sequence[Job], description: str, workers: int) -> None:
    """Runs jobs in the given order; a DataError shows the end of the output of one that fails."""
    waiting = list(reversed(jobs))
    running: list[_RunningJob] = []
    with (
        tempfile.TemporaryDirectory(prefix="tokenlearner-") as scratch,
        progress_bar(description, len(jobs)) as advance,
    ):
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(_start(waiting.pop(), Path(scratch)))
                time.sleep(_POLL_SECONDS)
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
    output = directory / "output.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", job.module, *job.arguments],
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _RunningJob(job, process, output)


def _stop(worker: _RunningJob) -> None:
    # The engine is a child of the worker and would outlive it, so the whole group is ended.
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
    else:
        worker.process.kill()
    worker.process.wait()


def _environment() -> dict[str, str]:
    project = Path(__file__).resolve().parents[2]
    paths = [str(project), *(os.path.abspath(entry) for entry in sys.path if entry)]
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(threads, "1"), "PYTHONPATH": os.pathsep.join(paths)}


def _check(worker: _RunningJob) -> None:
    if worker.process.returncode == 0:
        return
    text = worker.output.read_bytes().decode(errors="replace").strip()
    raise DataError(
        f"Worker {worker.job.name!r} ({worker.job.module}) ended with status "
        f"{worker.process.returncode}, expected 0. The end of its output:\n"
        f"{text[-2000:] or '(nothing)'}"
    )

"""Runs commands in worker processes, with a progress bar.

Plain subprocesses rather than `multiprocessing`: a spawned worker would import the
caller's main program (and TensorFlow with it), and the game engine needs its own working
directory and output stream.
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
from typing import IO

from trainers.utils.errors import DataError
from trainers.utils.reporting import progress_bar

MAXIMUM_WORKERS = 8
POLL_SECONDS = 0.02


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
    output: IO[bytes]


def default_workers() -> int:
    """Returns the number of cores this process may use, at most 8."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(MAXIMUM_WORKERS, cores))


def run_jobs(jobs: Sequence[Job], description: str, workers: int) -> None:
    """Runs every job to its end, in the given order, at most `workers` at a time.

    Raises:
        DataError: A job failed; the message holds the end of its output.
    """
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
    # The engine is a child of the worker and would outlive it, so the whole group is ended.
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

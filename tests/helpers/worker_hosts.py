"""Worker processes on this machine, each one a host of TF_CONFIG."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.processes import PATIENCE
from tests.helpers.processes import ROOT

Worker = subprocess.Popen[str]


@contextmanager
def start_workers(
    commands: Sequence[Sequence[str]], folders: Sequence[Path] = (ROOT, ROOT), **environment: str
) -> Iterator[list[Worker]]:
    """Starts a worker for each command; none outlives the block.

    Args:
        commands: A module and its arguments, for each host.
        folders: Where each host is started.
        **environment: Further variables, for all of them.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(len(commands))]
    workers = []
    for index, (command, folder) in enumerate(zip(commands, folders, strict=True)):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env={
                    **os.environ,
                    "KERAS_BACKEND": "tensorflow",
                    "PYTHONPATH": str(ROOT),
                    # All replicas of these tests are CPUs.
                    "CUDA_VISIBLE_DEVICES": "",
                    "TF_CONFIG": json.dumps(config),
                    **environment,
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        yield workers
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
            worker.communicate()


def ends_of(workers: Sequence[Worker]) -> list[tuple[int, str, str]]:
    """Returns status, output and errors of each worker."""
    texts = [worker.communicate(timeout=PATIENCE) for worker in workers]
    return [(w.returncode, *pair) for w, pair in zip(workers, texts, strict=True)]


def error_line(errors: str) -> str:
    """Returns the one line that a command ends with, and fails if there is more or less."""
    assert "Traceback" not in errors, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]

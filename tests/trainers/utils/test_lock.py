"""A second training in a work directory is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT
from trainers.utils.errors import ConfigurationError
from trainers.utils.lock import WorkdirLock

HOLDER = """
import sys
from trainers.utils.lock import WorkdirLock
with WorkdirLock() as lock:
    lock.acquire(sys.argv[1])
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    workdir = str(tmp_path)
    with WorkdirLock() as first, WorkdirLock() as second:
        first.acquire(workdir)
        with pytest.raises(ConfigurationError, match=r"process \d+\) is running"):
            second.acquire(workdir)
    with WorkdirLock() as third:
        third.acquire(workdir)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with WorkdirLock() as lock:
            with pytest.raises(ConfigurationError, match=f"process {holder.pid}\\)"):
                lock.acquire(str(tmp_path))
            holder.kill()
            holder.wait()
            lock.acquire(str(tmp_path))


def test_a_remote_directory_is_not_locked() -> None:
    with WorkdirLock() as lock:
        lock.acquire("gs://bucket/run")

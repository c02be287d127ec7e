"""A second training in a work directory is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT
from trainers.utils.errors import ConfigurationError
from trainers.utils.lock import workdir_lock

HOLDER = """
import sys
from trainers.utils.lock import workdir_lock
with workdir_lock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    workdir = str(tmp_path)
    with workdir_lock(workdir) as is_held:
        assert is_held
        refused = pytest.raises(ConfigurationError, match=r"process \d+\) is running")
        with refused, workdir_lock(workdir):
            pass
    with workdir_lock(workdir) as is_held:
        assert is_held


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        refused = pytest.raises(ConfigurationError, match=f"process {holder.pid}\\)")
        with refused, workdir_lock(str(tmp_path)):
            pass
        holder.kill()
        holder.wait()
        with workdir_lock(str(tmp_path)) as is_held:
            assert is_held


def test_a_remote_directory_is_not_locked() -> None:
    with workdir_lock("gs://bucket/run") as is_held:
        assert not is_held

"""Worker processes: their own directories, and failures told with their output."""

from pathlib import Path

import pytest

from trainers.utils.errors import DataError
from trainers.utils.subprocesses import Job
from trainers.utils.subprocesses import default_workers
from trainers.utils.subprocesses import run_jobs


def test_failure_shows_the_end_of_the_output() -> None:
    job = Job("first", "timeit", ("-n1", "-r1", "raise ValueError('spilled tea')"))
    with pytest.raises(DataError, match=r"'first'(.|\n)*spilled tea"):
        run_jobs([job], "Trying", workers=1)


def test_every_job_runs_in_a_directory_of_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(3)]
    statement = "import os; open({!r}, 'w').write(os.getcwd())"
    jobs = [Job(path.name, "timeit", ("-n1", "-r1", statement.format(str(path)))) for path in paths]
    run_jobs(jobs, "Trying", workers=2)
    assert len({path.read_text() for path in paths}) == 3


def test_number_of_workers_is_bounded() -> None:
    assert 1 <= default_workers() <= 8

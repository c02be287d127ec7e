"""Profiles of some steps, written for TensorBoard."""

from pathlib import Path

import pytest

from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import engine_of
from tests.helpers.small_runs import rows
from trainers.training.profiling import StepProfiler
from trainers.training.profiling import parse_profile_steps
from trainers.utils.errors import ConfigurationError


@pytest.mark.parametrize("text", ["", "3", "0:2", "4:3", "a:b", "1:2:3", "-1:2", "1-2", "2:"])
def test_wrong_ranges(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--profile_steps must be A:B"):
        parse_profile_steps(text)


def test_blocks_end_at_the_borders(tmp_path: Path) -> None:
    assert parse_profile_steps(None) is None
    profiler = StepProfiler(engine_of(1), tmp_path, parse_profile_steps("4:6"), 20)
    assert [profiler.limit(step, 10) for step in (0, 2, 3, 5, 6)] == [3, 1, 3, 1, 10]
    assert profiler.limit(0, 2) == 2
    assert StepProfiler(engine_of(1), tmp_path, None, 20).limit(0, 10) == 10


def test_a_range_beyond_the_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="which has 5 steps"):
        StepProfiler(engine_of(1), tmp_path, (2, 6), 5)


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["2:3", pytest.param("4:4", marks=pytest.mark.extra)])
def test_a_profile_for_tensorboard(trainer: Trainer, tmp_path: Path, steps: str) -> None:
    workdir = trainer("run", f"--profile_steps={steps}", "--config.log_steps=4")
    (profile,) = workdir.glob("tensorboard/plugins/profile/*/*.xplane.pb")
    assert profile.stat().st_size > 0
    assert [row["step"] for row in rows(workdir, "train")] == [4]
    # Without the flag there is none, and a wrong one leaves no trace.
    assert not list(trainer("plain").glob("tensorboard/plugins"))
    with pytest.raises(ConfigurationError, match="4 steps"):
        trainer("late", "--profile_steps=2:9")
    assert not (tmp_path / "late").exists()

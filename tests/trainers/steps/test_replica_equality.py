"""The same training ends with the same weights on any number of replicas.

Two worker processes are in test_multi_worker.py.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.equality import CASES
from tests.helpers.equality import FEWER_CASES
from tests.helpers.equality import assert_same_training
from tests.helpers.equality import on_one_replica
from tests.helpers.equality import train_case
from tests.helpers.processes import ROOT
from tests.helpers.small_runs import engine_of
from tests.helpers.small_runs import shares
from tests.helpers.step_runs import StepRun
from tests.helpers.step_runs import linear
from trainers.checkpointing.state import load_state

QUICKER = ("adamw", "fine_tuned")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, marks=pytest.mark.every_backend) for case in QUICKER),
        *(pytest.param(case, marks=pytest.mark.extra) for case in CASES if case not in QUICKER),
    ],
)
def test_two_replicas(case: str) -> None:
    assert_same_training(on_one_replica(case), train_case(engine_of(2), case))


@pytest.mark.extra
def test_four_replicas(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.replica_process"]
    subprocess.run([*command, str(tmp_path / "ends.npz"), "4"], cwd=ROOT, check=True)
    ends = np.load(tmp_path / "ends.npz")
    assert ends["replicas"] == 4
    for case in FEWER_CASES:
        one = on_one_replica(case)
        assert_same_training(one, {name: ends[f"{case}:{name}"] for name in one})


@pytest.mark.slow
def test_micro_batches_end_like_the_whole_batch() -> None:
    whole, parts = on_one_replica("adamw"), on_one_replica("accumulation")
    assert_same_training(whole, parts)


@pytest.mark.every_backend
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_quick_look_at_micro_batches(replicas: int) -> None:
    whole, parts = (
        StepRun(engine_of(count), linear, accumulation=micro_batches, mixup_alpha=0.4)
        for count, micro_batches in ((1, 1), (replicas, 4))
    )
    sums, sums_of_parts = (run.train(0, 5) for run in (whole, parts))
    for name in ("loss", "correct", "num_examples", "gradient_norm"):
        assert sums_of_parts[name] == pytest.approx(sums[name], rel=1e-5), name
    for name, value in whole.state().items():
        np.testing.assert_allclose(parts.state()[name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.every_backend
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
@pytest.mark.slow
def test_a_run_resumes_with_other_replicas(before: int, after: int) -> None:
    whole = StepRun(engine_of(after), linear, mixup_alpha=0.4)
    started, resumed = (
        StepRun(engine_of(replicas), linear, mixup_alpha=0.4) for replicas in (before, after)
    )
    whole.train(0, 3)
    started.train(0, 3)
    load_state(started.state(), resumed.model, resumed.optimizer)
    expected, found = whole.train(3, 3), resumed.train(3, 3)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for name, value in whole.state().items():
        np.testing.assert_allclose(resumed.state()[name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.every_backend
@pytest.mark.parametrize("step", [0, 7])
def test_replicas_share_the_batch_of_a_step(step: int) -> None:
    one, two = (StepRun(engine_of(replicas), linear, mixup_alpha=0.4) for replicas in (1, 2))
    whole, halves = next(one.batches(step)), next(two.batches(step))
    for name in ("image", "target"):
        parts = shares(two.engine, halves[name])
        assert len(parts) == 2 and len(parts[0]) == len(parts[1])
        np.testing.assert_array_equal(np.concatenate(parts), whole[name])

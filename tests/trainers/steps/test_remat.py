"""`model.remat` in the training step: replicas, micro-batches and XLA.

What it does to a block, on every backend, is in tests/tokenlearner_keras/test_remat.py.
"""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.backends import only_on_tensorflow
from tests.helpers.processes import ROOT
from tests.helpers.remat_runs import FEWER_RUNS
from tests.helpers.remat_runs import assert_same_weights
from tests.helpers.remat_runs import largest_difference
from tests.helpers.remat_runs import train_remat
from tests.helpers.small_runs import engine_of
from tests.helpers.step_runs import Arrays


@functools.cache
def on_one_replica(case: str, remat: bool) -> Arrays:
    """Returns how a case ends on one replica."""
    return train_remat(engine_of(1), case, remat=remat)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        pytest.param("dropout", marks=pytest.mark.every_backend),
        pytest.param("accumulation", marks=pytest.mark.extra),
    ],
)
def test_one_replica(case: str) -> None:
    assert_same_weights(on_one_replica(case, False), on_one_replica(case, True))


@pytest.mark.extra
@pytest.mark.parametrize("case", ["accumulation", "dropout"])
def test_two_replicas_with_dropout(case: str) -> None:
    plain, remat = (train_remat(engine_of(2), case, remat=each) for each in (False, True))
    assert_same_weights(plain, remat)


@pytest.mark.extra
def test_two_replicas_without_dropout_end_like_one() -> None:
    remat = train_remat(engine_of(2), "certain", remat=True)
    assert_same_weights(on_one_replica("certain", False), remat)


@pytest.mark.extra
def test_micro_batches_without_dropout_end_like_the_whole_batch() -> None:
    for replicas in (1, 2):
        parts = train_remat(engine_of(replicas), "certain", remat=True, accumulation=2)
        assert_same_weights(on_one_replica("certain", False), parts)


@pytest.mark.slow
def test_the_masks_make_a_difference() -> None:
    """Were they drawn again in the second pass, the tests with dropout would see it."""
    other = train_remat(engine_of(1), "dropout", remat=True, seed=1)
    assert largest_difference(on_one_replica("dropout", True), other) > 1e-3


@only_on_tensorflow("JAX always compiles")
@pytest.mark.extra
@pytest.mark.parametrize("accumulation", [1, 2])
def test_compiled_by_xla(accumulation: int) -> None:
    compiled = {"jit_compile": True, "accumulation": accumulation}
    plain, remat = (
        train_remat(engine_of(1), "dropout", remat=each, **compiled) for each in (False, True)
    )
    assert_same_weights(plain, remat)
    certain = train_remat(engine_of(1), "certain", remat=True, **compiled)
    assert_same_weights(on_one_replica("certain", False), certain)


@pytest.mark.slow
@pytest.mark.extra
def test_four_replicas(tmp_path: Path) -> None:
    output = tmp_path / "ends.npz"
    command = [sys.executable, "-m", "tests.helpers.replica_process", str(output), "4"]
    subprocess.run([*command, "--cases=remat"], cwd=ROOT, check=True)
    ends = np.load(output)
    assert ends["replicas"] == 4
    one = on_one_replica("certain", False)
    certain, plain, remat = (
        {name: ends[f"{case}:{kind}:{name}"] for name in one} for case, kind in FEWER_RUNS
    )
    assert_same_weights(one, certain)
    assert_same_weights(plain, remat)

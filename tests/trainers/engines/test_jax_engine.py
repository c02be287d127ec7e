"""Training on JAX: any layout of the devices, one program, and states that survive.

What holds on any engine is in test_train_step.py, test_replica_equality.py and others.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.backends import ON_JAX
from tests.helpers.equality import assert_same_training
from tests.helpers.equality import on_one_replica
from tests.helpers.equality import train_case
from tests.helpers.mask_runs import MaskRun
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import checkpoint_arrays
from tests.helpers.small_runs import rows
from tests.helpers.step_runs import Arrays
from tests.helpers.step_runs import StepRun
from tests.helpers.step_runs import linear
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from trainers.checkpointing.state import load_state

if not ON_JAX:
    pytest.skip("JAX only: it is the engine under test", allow_module_level=True)

import jax

from trainers.engines import jax_sharding
from trainers.engines.hosts import Hosts
from trainers.engines.jax_engine import JaxEngine
from trainers.engines.jax_sharding import JaxLayout

#: Copies of the weights, and devices that share one.
LAYOUTS = [(8, 1), (4, 2), (2, 4)]


@pytest.fixture(autouse=True)
def _small_weights_are_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax_sharding, "_SMALLEST_CUT", 32)


def _engine(copies: int, sharing: int) -> JaxEngine:
    return JaxEngine(JaxLayout(jax.devices()[: copies * sharing], copies, sharing), Hosts())


def _assert_close(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.every_backend
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_training_on_any_layout(layout: tuple[int, int]) -> None:
    assert_same_training(on_one_replica("adamw"), train_case(_engine(*layout), "adamw"))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lamb", "accumulation"])
def test_other_optimizers_and_micro_batches_on_shared_weights(case: str) -> None:
    assert_same_training(on_one_replica(case), train_case(_engine(2, 4), case))


@pytest.mark.every_backend
def test_weights_and_optimizer_lie_in_parts() -> None:
    run = StepRun(_engine(2, 4), linear, use_ema=True)
    run.train(0, 1)
    kernel, bias = run.model.trainable_variables  # (192, 10), (10,)
    slots = [each for each in run.optimizer.variables if each.shape == kernel.shape]
    assert len(slots) == 3  # two moments and the averages
    for variable in (kernel, *slots):
        parts = variable.value.addressable_shards
        assert [part.data.shape for part in parts] == [(48, 10)] * 8
        # Each of the two copies is whole.
        starts = sorted(part.index[0].start or 0 for part in parts)
        assert starts == [0, 0, 48, 48, 96, 96, 144, 144]
    assert {part.data.shape for part in bias.value.addressable_shards} == {(10,)}


@pytest.mark.every_backend
@pytest.mark.parametrize("layout", [(1, 1), (4, 2), (8, 1)])
def test_a_state_goes_on_in_another_layout(layout: tuple[int, int]) -> None:
    started, resumed = (StepRun(_engine(*each), linear, use_ema=True) for each in ((2, 4), layout))
    started.train(0, 3)
    saved = started.state()
    resumed.train(0, 1)  # its arrays have their places already
    load_state(saved, resumed.model, resumed.optimizer)
    assert_same_arrays(resumed.state(), saved)
    started.train(3, 3), resumed.train(3, 3)
    _assert_close(started.state(), resumed.state())
    # And back, to the bit.
    load_state(saved, started.model, started.optimizer)
    assert_same_arrays(started.state(), saved)


@pytest.mark.every_backend
def test_a_run_goes_on_with_weights_shared_or_whole(trainer: Trainer) -> None:
    config = (
        "--config.ema_decay=0.5",
        "--config.eval_steps=4",
        "--config.optimizer.epsilon=1e-5",  # some gradients are zero, but for rounding
    )
    shared = ("--strategy=auto", "--batch_axis=2", "--model_axis=4")
    trainer("run", "--config.total_steps=4", *config, *shared)
    run, whole = (trainer(name, "--config.total_steps=6", *config) for name in ("run", "whole"))
    _assert_close(checkpoint_arrays(run, 6), checkpoint_arrays(whole, 6))
    found, expected = (rows(workdir, "validation") for workdir in (run, whole))
    assert [row["step"] for row in found] == [4, 6]
    # The first is of averages that lay in parts.
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, abs=1e-4)


@pytest.mark.every_backend
@pytest.mark.parametrize("accumulation", [1, 2])
def test_masks_do_not_depend_on_the_devices(accumulation: int) -> None:
    one, *others = (
        sorted(MaskRun(_engine(*layout), accumulation=accumulation).masks(5))
        for layout in ((1, 1), (8, 1), (2, 4))
    )
    assert len(one) == len(set(one)) == accumulation
    assert all(other == one for other in others)


@pytest.mark.every_backend
def test_dropout_does_not_depend_on_the_devices() -> None:
    def end(layout: tuple[int, int], seed: int = 0) -> Arrays:
        run = StepRun(_engine(*layout), lambda: linear(keras.layers.Dropout(0.5)), seed=seed)
        run.train(0, 3)
        return run.state()

    one = end((1, 1))
    for layout in ((8, 1), (2, 4)):
        _assert_close(one, end(layout))
    kernel = "model/sequential/dense/kernel"
    assert np.abs(end((1, 1), seed=1)[kernel] - one[kernel]).max() > 1e-3


@pytest.mark.every_backend
def test_statistics_of_batch_norms_on_shared_weights() -> None:
    def build() -> keras.Model:
        return linear(keras.layers.Dense(8), BatchNormalization())

    one, shared = (StepRun(_engine(*each), build, optimizer="sgd") for each in ((1, 1), (2, 4)))
    one.train(0, 3), shared.train(0, 3)
    moving = [name for name in one.state() if name.endswith(("moving_mean", "moving_variance"))]
    assert len(moving) == 2
    _assert_close(one.state(), shared.state())


@pytest.mark.every_backend
@pytest.mark.parametrize("layout", [(1, 1), (2, 4)])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_is_compiled_once(
    caplog: pytest.LogCaptureFixture, layout: tuple[int, int], accumulation: int
) -> None:
    def compilations() -> int:
        return sum("Compiling jit(_one_step)" in message for message in caplog.messages)

    run = StepRun(_engine(*layout), linear, use_ema=True, accumulation=accumulation)
    with jax.log_compiles():
        run.train(0, 3)
        assert compilations() == 1
        # Blocks of another length, and what a resume puts in.
        run.train(3, 2)
        load_state(run.state(), run.model, run.optimizer)
        run.train(5, 1)
        assert compilations() == 1


@pytest.mark.every_backend
def test_what_fails_in_a_block_leaves_the_state_of_the_last_step() -> None:
    failed, whole = (StepRun(_engine(2, 4), linear, use_ema=True) for _ in range(2))

    def broken() -> Iterator[dict[str, Any]]:
        batches = failed.batches(1)
        yield next(batches)
        yield next(batches)
        raise OSError("a disk is gone")

    failed.train(0, 1)  # from now on a step takes the arrays of the one before
    before = failed.state()
    with pytest.raises(OSError, match="a disk is gone"):
        failed.step.run(broken(), 1, 5)
    whole.train(0, 3)
    assert_same_arrays(failed.state(), whole.state())
    assert failed.state()["optimizer/00000_iteration"] == 3
    kernel = "model/sequential/dense/kernel"
    assert np.abs(failed.state()[kernel] - before[kernel]).max() > 1e-3
    failed.train(3, 2), whole.train(3, 2)
    assert_same_arrays(failed.state(), whole.state())

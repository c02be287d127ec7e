"""Batch norms inside the training step: statistics of the global batch, kept in checkpoints."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.backends import only_on_jax
from tests.helpers.backends import only_on_tensorflow
from tests.helpers.small_runs import engine_of
from tests.helpers.step_runs import StepRun
from tests.helpers.step_runs import linear
from tokenlearner_keras import create_model
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from trainers.checkpointing.state import load_state
from trainers.utils.errors import ConfigurationError


def _convolutional(remat: bool = False) -> keras.Model:
    """Returns a small convolutional video model with TokenLearner, on clips of one frame."""
    video = create_model(
        "x2plus1d_m_tokenlearner",
        10,
        8,
        1,
        stem_width=4,
        widths=(4, 6),
        inner_widths=(6, 8),
        depths=(1, 2),
        module_blocks=1,
        num_tokens=2,
        num_heads=2,
        key_width=4,
        representation_size=None,
        remat=remat,
    )
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, video(keras.layers.Reshape((1, 8, 8, 3))(inputs)))


def _normalized() -> keras.Model:
    """Returns a classifier of two layers with a batch norm between them."""
    return linear(keras.layers.Dense(6), BatchNormalization())


def _run(replicas: int, build: Callable[[], keras.Model], **options: Any) -> StepRun:
    # No clipping: the first gradients of the fuser are a thousandfold.
    return StepRun(engine_of(replicas), build, optimizer="sgd", clipnorm=None, **options)


def _assert_same_statistics(one: StepRun, two: StepRun, norms: int) -> None:
    """Fails unless two runs end with the same weights and statistics, which have moved."""
    expected, found = one.state(), two.state()
    moving = [name for name in expected if name.endswith(("moving_mean", "moving_variance"))]
    assert len(moving) == 2 * norms
    for name in moving:
        initial = name.endswith("variance")
        assert not np.allclose(expected[name], initial, atol=0.01), name
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.every_backend
def test_two_replicas_have_the_statistics_of_one() -> None:
    one, two = _run(1, _normalized), _run(2, _normalized)
    sums, sums_of_two = (run.train(0, 3) for run in (one, two))
    assert sums_of_two["loss"] == pytest.approx(sums["loss"], rel=1e-4)
    _assert_same_statistics(one, two, norms=1)


@pytest.mark.extra
@pytest.mark.parametrize("remat", [True, False])
def test_two_replicas_of_a_video_model(remat: bool) -> None:
    one, two = _run(1, _convolutional), _run(2, partial(_convolutional, remat=remat))
    for run in (one, two):
        run.train(0, 3)
    _assert_same_statistics(one, two, norms=15)


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "replicas",
    [1, *(pytest.param(n, marks=only_on_jax("TensorFlow refuses it")) for n in (2, 4))],
)
def test_micro_batches_move_the_statistics_one_after_the_other(replicas: int) -> None:
    run = StepRun(engine_of(replicas), _normalized, accumulation=2)
    alone = StepRun(engine_of(1), _normalized)
    images = np.asarray(next(run.batches(0))["image"]) / np.float32(127.5) - 1
    run.train(0, 1)
    halves = [np.split(share, 2) for share in np.split(images, replicas)]
    for part in zip(*halves, strict=True):
        # A micro-batch has rows of every replica.
        alone.model(np.concatenate(part), training=True)
    found, expected = (
        [variable.numpy() for variable in each.model.non_trainable_variables]
        for each in (run, alone)
    )
    assert len(found) == 2 and np.abs(found[0]).max() > 0.01
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-6, rtol=0)


@only_on_tensorflow("JAX cuts the batch up outside of the model")
def test_micro_batches_on_replicas_that_share_statistics_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="on 2 replicas. .*--strategy=one_device"):
        StepRun(engine_of(2), _normalized, accumulation=2)


@pytest.mark.every_backend
@pytest.mark.slow
def test_a_resumed_run_has_the_same_statistics() -> None:
    whole, started, resumed = (_run(1, _normalized) for _ in range(3))
    whole.train(0, 4)
    started.train(0, 2)
    load_state(started.state(), resumed.model, resumed.optimizer)
    resumed.train(2, 2)
    found = resumed.state()
    for name, value in whole.state().items():
        assert np.array_equal(found[name], value), name


@only_on_tensorflow("JAX always compiles")
@pytest.mark.extra
def test_a_step_compiled_by_xla_has_the_same_statistics() -> None:
    plain, compiled = _run(1, _convolutional), _run(1, _convolutional, jit_compile=True)
    plain.train(0, 2)
    compiled.train(0, 2)
    found = compiled.state()
    for name, value in plain.state().items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, rtol=0, err_msg=name)

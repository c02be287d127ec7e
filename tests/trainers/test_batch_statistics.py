"""Batch norms inside the training step: statistics of the global batch, kept in checkpoints."""

import keras
import numpy as np
import pytest

from tests.trainers.small_runs import strategy_of
from tests.trainers.step_runs import StepRun
from tokenlearner_keras import create_model
from trainers.state import load_state


def _convolutional() -> keras.Model:
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
    )
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, video(keras.layers.Reshape((1, 8, 8, 3))(inputs)))


def _run(replicas: int, **options: object) -> StepRun:
    # No clipping: the first gradients of the fuser are a thousandfold.
    return StepRun(strategy_of(replicas), _convolutional, optimizer="sgd", **options)  # type: ignore[arg-type]


def test_two_replicas_have_the_statistics_of_one() -> None:
    one, two = _run(1), _run(2)
    sums, sums_of_two = (run.train(0, 3) for run in (one, two))
    assert sums_of_two["loss"] == pytest.approx(sums["loss"], rel=1e-4)
    expected, found = one.state(), two.state()
    moving = [name for name in expected if name.endswith(("moving_mean", "moving_variance"))]
    assert len(moving) == 2 * 15
    for name in moving:
        initial = name.endswith("variance")
        assert not np.allclose(expected[name], initial, atol=1e-4), name
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, rtol=0, err_msg=name)


def test_a_resumed_run_has_the_same_statistics() -> None:
    whole, started, resumed = (_run(1) for _ in range(3))
    whole.train(0, 4)
    started.train(0, 2)
    load_state(started.state(), resumed.model, resumed.optimizer)
    resumed.train(2, 2)
    found = resumed.state()
    for name, value in whole.state().items():
        assert np.array_equal(found[name], value), name


@pytest.mark.slow
def test_a_step_compiled_by_xla_has_the_same_statistics() -> None:
    plain, compiled = _run(1), _run(1, jit_compile=True)
    plain.train(0, 2)
    compiled.train(0, 2)
    found = compiled.state()
    for name, value in plain.state().items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, rtol=0, err_msg=name)

"""Steps that work with different numbers of learned tokens."""

from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import engine_of
from tests.helpers.step_runs import StepRun

TOKENS = (1, 2, 4)


def _learner() -> keras.Model:
    """Returns a classifier of the digits that is compiled in no time."""
    layers = [tk.TokenLearnerV11(4, name="learner"), keras.layers.GlobalAveragePooling1D()]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(10)])


def _run(replicas: int = 1, **options: Any) -> StepRun:
    return StepRun(engine_of(replicas), _learner, elastic_tokens=TOKENS, **options)


def test_the_number_is_a_function_of_seed_and_step() -> None:
    run, again, other = _run(), _run(), _run(seed=1)
    found, repeated, others = (
        [each.step.num_tokens_at(step) for step in range(300)] for each in (run, again, other)
    )
    assert found == repeated != others
    # None stands for all. By hand: the same for ever, or runs would not resume.
    assert found[:8] == [2, None, 2, 2, 1, 1, None, None]
    for num_tokens in (1, 2, None):
        assert 70 < found.count(num_tokens) < 130
    assert run.step.models.keys() == {1, 2, None}


@pytest.mark.every_backend
def test_a_step_trains_with_the_tokens_of_its_number() -> None:
    run = _run()
    kernel = run.model.get_layer("learner").token_masking.output_layer.kernel
    index = [each is kernel for each in run.model.trainable_variables].index(True)
    seen = set()
    for step in range(5):
        images, targets = run.step.compiled.whole(next(run.batches(step)))
        gradient = np.asarray(run.step.compiled.gradients(images, targets, step)[index])
        num_tokens = run.step.num_tokens_at(step) or 4
        assert (np.abs(gradient).max(axis=0) > 0).tolist() == [t < num_tokens for t in range(4)]
        seen.add(num_tokens)
    assert seen == set(TOKENS)


@pytest.mark.every_backend
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"accumulation": 2}], ids=["", "accumulation"])
def test_steps_in_one_block_are_those_one_by_one(options: dict[str, Any]) -> None:
    whole, parts = _run(**options), _run(**options)
    sums = whole.train(0, 7)
    one_by_one = [parts.train(step, 1) for step in range(7)]
    assert_same_arrays(whole.state(), parts.state())
    assert sums["loss"] == pytest.approx(sum(each["loss"] for each in one_by_one), rel=1e-12)


@pytest.mark.every_backend
@pytest.mark.slow
def test_two_replicas_work_with_the_same_tokens() -> None:
    one, two = _run(), _run(2)
    sums, sums_of_two = one.train(0, 5), two.train(0, 5)
    assert sums_of_two["loss"] == pytest.approx(sums["loss"], rel=1e-5)
    for name, value in one.state().items():
        np.testing.assert_allclose(two.state()[name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.every_backend
def test_each_number_is_compiled_once() -> None:
    run = _run()
    traced: list[int | None] = []
    original = run.step.loss_and_sums

    def counted(images: Any, targets: Any, num_tokens: int | None) -> Any:
        traced.append(num_tokens)
        return original(images, targets, num_tokens)

    run.step.loss_and_sums = counted
    run.train(0, 9)
    seen = {run.step.num_tokens_at(step) for step in range(9)}
    assert sorted(traced, key=str) == sorted(seen, key=str) and len(seen) == 3
    assert run.step.has_compiled
    run.train(9, 9)
    assert len(traced) == 3 and not run.step.has_compiled

"""The maths of a step, its random masks, and what is compiled.

That it is the same maths on any number of replicas is in test_replica_equality.py.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.small_runs import assert_same_arrays
from tests.trainers.small_runs import engine_of
from tests.trainers.step_runs import BATCH
from tests.trainers.step_runs import StepRun
from tests.trainers.step_runs import linear
from trainers import train_step
from trainers.configuration import base_config
from trainers.errors import ConfigurationError
from trainers.errors import TrainingError
from trainers.experiment import check_training
from trainers.state import load_state


def test_a_step_follows_the_gradient_of_the_mean_loss() -> None:
    run = StepRun(engine_of(1), linear, clipnorm=None)
    batch = next(run.batches(0))
    with tf.GradientTape() as tape:
        logits = run.model(tf.cast(batch["image"], tf.float32) / 127.5 - 1)
        losses = keras.losses.categorical_crossentropy(batch["target"], logits, from_logits=True)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [v.value for v in run.model.trainable_variables])
    sums = run.train(0, 1)
    assert sums["loss"] / BATCH == pytest.approx(float(loss), rel=1e-5)
    assert sums["gradient_norm"] == pytest.approx(float(tf.linalg.global_norm(gradients)), rel=1e-5)
    first_moment = run.state()["optimizer/00001_sequential_dense_kernel_momentum"]
    np.testing.assert_allclose(first_moment, 0.1 * gradients[0], rtol=1e-4, atol=1e-8)


def test_averages_of_the_weights() -> None:
    run = StepRun(engine_of(2), linear, use_ema=True)
    averages: list[np.ndarray] = []
    for step in range(3):
        run.train(step, 1)
        weights = [variable.numpy() for variable in run.model.trainable_variables]
        averages = [
            0.75 * average + 0.25 * weight
            for average, weight in zip(averages or weights, weights, strict=True)
        ]
    found = run.optimizer._model_variables_moving_average
    for average, expected in zip(found, averages, strict=True):
        np.testing.assert_allclose(average.numpy(), expected, atol=1e-6)


class _Masks(keras.layers.Layer):
    """Hands out the dropout mask of each replica, and passes its input on."""

    def __init__(self, see: Callable[[tuple[float, ...]], None]) -> None:
        super().__init__()
        self.see = see
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            mask = keras.random.dropout(tf.ones((32,)), 0.5, seed=self.generator)
            zero = tf.numpy_function(self._show, [mask], tf.float32)
            inputs = inputs + tf.ensure_shape(zero, ())
        return inputs

    def _show(self, mask: np.ndarray) -> np.float32:
        self.see(tuple(mask))
        return np.float32(0)


@pytest.mark.parametrize(("replicas", "accumulation"), [(1, 1), (2, 1), (1, 2), (2, 4)])
def test_masks_are_a_function_of_seed_step_replica_and_micro_batch(
    replicas: int, accumulation: int
) -> None:
    seen: list[tuple[float, ...]] = []
    count = replicas * accumulation

    def make_run(seed: int) -> StepRun:
        return StepRun(
            engine_of(replicas),
            lambda: linear(_Masks(seen.append)),
            seed=seed,
            accumulation=accumulation,
        )

    def masks(run: StepRun, step: int) -> set[tuple[float, ...]]:
        seen.clear()
        run.train(step, 1)
        assert len(seen) == count
        return set(seen)

    run, again, other = make_run(0), make_run(0), make_run(1)
    at_3, at_4 = masks(run, 3), masks(run, 4)
    assert all(set(mask) == {0.0, 2.0} for mask in at_3)
    assert len(at_3 | at_4) == 2 * count
    assert masks(again, 4) == at_4
    assert not masks(other, 4) & at_4


def test_dropout_goes_on_after_a_resume_as_without() -> None:
    def build() -> keras.Model:
        return linear(keras.layers.Dropout(0.5))

    whole, resumed = (StepRun(engine_of(2), build, use_ema=True, accumulation=2) for _ in range(2))
    whole.train(0, 2)
    middle = whole.state()
    whole.train(2, 2)
    load_state(middle, resumed.model, resumed.optimizer)
    resumed.train(2, 2)
    assert_same_arrays(resumed.state(), whole.state())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_compiled_by_xla_the_step_is_the_same(accumulation: int) -> None:
    plain, compiled = (
        StepRun(engine_of(1), linear, jit_compile=jit_compile, accumulation=accumulation)
        for jit_compile in (False, True)
    )
    for run in (plain, compiled):
        run.train(0, 4)
    for name, value in plain.state().items():
        np.testing.assert_allclose(compiled.state()[name], value, atol=1e-5, err_msg=name)
    with pytest.raises(ConfigurationError, match="for one replica"):
        StepRun(engine_of(2), linear, jit_compile=True)


@pytest.mark.parametrize(("replicas", "accumulation"), [(1, 1), (2, 1), (2, 2)])
def test_the_loop_is_traced_once_with_static_shapes_and_bytes(
    monkeypatch: pytest.MonkeyPatch, replicas: int, accumulation: int
) -> None:
    traced = []

    def normalize(images: tf.Tensor, kind: str) -> tf.Tensor:
        traced.append((images.dtype, tuple(images.shape)))
        return normalize_images(images, kind)

    normalize_images = train_step.normalize
    monkeypatch.setattr(train_step, "normalize", normalize)
    run = StepRun(engine_of(replicas), linear, accumulation=accumulation)
    batches = run.batches(0)
    sums = run.step.run(batches, 0, 3)
    assert sums["num_examples"] == 3 * BATCH
    part = (BATCH // replicas // accumulation, 8, 8, 3)
    assert set(traced) == {(tf.uint8, part)}
    # Blocks of another length, and batches after a resume, use what is there.
    traced.clear()
    run.step.run(batches, 3, 2)
    run.train(7, 1)
    assert not traced


@pytest.mark.parametrize(
    ("replicas", "accumulation", "cure"), [(1, 3, "15 or 18"), (2, 5, "10 or 20"), (1, 17, "17")]
)
def test_micro_batches_that_do_not_divide(replicas: int, accumulation: int, cure: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{accumulation}.*received 16; .* to {cure}$"):
        StepRun(engine_of(replicas), linear, accumulation=accumulation)


def test_less_than_one_micro_batch() -> None:
    config = base_config()
    config.gradient_accumulation_steps, config.total_steps = 0, 1
    with pytest.raises(ConfigurationError, match="gradient_accumulation_steps must be at least 1"):
        check_training(config)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor.\nHint: a page"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"),
    ],
)
def test_too_little_memory_is_one_line_with_cures(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    run = StepRun(engine_of(1), linear)
    monkeypatch.setattr(run.step.compiled, "run", fail)
    with pytest.raises(TrainingError, match=r"allocating.*\)\. Lower batch_size.*remat") as failure:
        run.train(0, 1)
    assert "\n" not in str(failure.value)
    monkeypatch.setattr(run.step.compiled, "run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.train(0, 1)

"""The maths of a step, its random masks, and what is compiled.

That it is the same maths on any number of replicas is in test_replica_equality.py.
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.backends import ON_JAX
from tests.helpers.backends import dtype_name
from tests.helpers.backends import only_on_tensorflow
from tests.helpers.mask_runs import MaskRun
from tests.helpers.small_runs import assert_same_arrays
from tests.helpers.small_runs import engine_of
from tests.helpers.step_runs import BATCH
from tests.helpers.step_runs import StepRun
from tests.helpers.step_runs import linear
from trainers.checkpointing.state import load_state
from trainers.configuration.configuration import base_config
from trainers.configuration.training_options import check_training
from trainers.steps import train_step
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError


@pytest.mark.every_backend
def test_a_step_follows_the_gradient_of_the_mean_loss() -> None:
    run = StepRun(engine_of(1), linear, clipnorm=None)
    batch = {name: np.asarray(value) for name, value in next(run.batches(0)).items()}
    inputs = batch["image"].reshape(BATCH, -1) / np.float64(127.5) - 1  # (B, 192)
    kernel, bias = (variable.numpy() for variable in run.model.trainable_variables)
    logits = inputs @ kernel + bias  # (B, 10)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = -np.log((probabilities * batch["target"]).sum(axis=1)).mean()
    by_logits = (probabilities - batch["target"]) / BATCH
    gradients = [inputs.T @ by_logits, by_logits.sum(axis=0)]
    norm = np.sqrt(sum(np.square(gradient).sum() for gradient in gradients))
    sums = run.train(0, 1)
    assert sums["loss"] / BATCH == pytest.approx(loss, rel=1e-5)
    assert sums["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    first_moment = run.state()["optimizer/00001_sequential_dense_kernel_momentum"]
    np.testing.assert_allclose(first_moment, 0.1 * gradients[0], rtol=1e-4, atol=1e-8)


@pytest.mark.every_backend
def test_the_sums_of_a_block_keep_their_digits() -> None:
    run = StepRun(engine_of(1), linear)
    losses = np.full(BATCH, 2.0**20, np.float32)
    losses[0] += 2
    run.step.loss = lambda targets, logits: 0 * logits[:, 0] + losses
    expected = 3 * (2**24 + 2)
    assert run.train(0, 3)["loss"] == expected
    assert int(np.float32(expected)) != expected


@pytest.mark.every_backend
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


@pytest.mark.parametrize(
    ("replicas", "accumulation"),
    [(1, 1), (2, 1), (1, 2), pytest.param(2, 4, marks=pytest.mark.every_backend)],
)
@pytest.mark.slow
def test_masks_are_a_function_of_seed_step_replica_and_micro_batch(
    replicas: int, accumulation: int
) -> None:
    # On JAX a pass draws one mask for the whole batch, whatever it runs on.
    count = accumulation if ON_JAX else replicas * accumulation
    run, again, other = (
        MaskRun(engine_of(replicas), seed=seed, accumulation=accumulation) for seed in (0, 0, 1)
    )
    at_3, at_4 = run.masks(3), run.masks(4)
    assert all(set(mask) == {0.0, 2.0} for mask in at_3)
    assert len(at_3) == len(at_4) == count
    assert len({*at_3, *at_4}) == 2 * count
    assert sorted(again.masks(4)) == sorted(at_4)
    assert not {*other.masks(4)} & {*at_4}


@pytest.mark.every_backend
@pytest.mark.slow
def test_dropout_after_a_resume_is_as_without() -> None:
    def build() -> keras.Model:
        return linear(keras.layers.Dropout(0.5))

    whole, resumed = (StepRun(engine_of(2), build, use_ema=True, accumulation=2) for _ in range(2))
    whole.train(0, 2)
    middle = whole.state()
    whole.train(2, 2)
    load_state(middle, resumed.model, resumed.optimizer)
    resumed.train(2, 2)
    assert_same_arrays(resumed.state(), whole.state())


@only_on_tensorflow("JAX always compiles")
@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("replicas", "accumulation"),
    [
        pytest.param(1, 1, marks=pytest.mark.slow),
        pytest.param(2, 1, marks=pytest.mark.slow),
        (2, 2),
    ],
)
def test_the_loop_is_traced_once_with_static_shapes_and_bytes(
    monkeypatch: pytest.MonkeyPatch, replicas: int, accumulation: int
) -> None:
    traced = []

    def normalize(images: Any, kind: str) -> Any:
        traced.append((dtype_name(images), tuple(images.shape)))
        return normalize_images(images, kind)

    normalize_images = train_step.normalize
    monkeypatch.setattr(train_step, "normalize", normalize)
    run = StepRun(engine_of(replicas), linear, accumulation=accumulation)
    batches = run.batches(0)
    sums = run.step.run(batches, 0, 3)
    assert sums["num_examples"] == 3 * BATCH
    # A program of JAX sees the rows of all devices.
    parts = accumulation if ON_JAX else replicas * accumulation
    assert set(traced) == {("uint8", (BATCH // parts, 8, 8, 3))}
    # Blocks of another length, and batches after a resume, use what is there.
    traced.clear()
    run.step.run(batches, 3, 2)
    run.train(7, 1)
    assert not traced


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("replicas", "accumulation", "hint"), [(1, 3, "15 or 18"), (2, 5, "10 or 20"), (1, 17, "17")]
)
def test_micro_batches_that_do_not_divide(replicas: int, accumulation: int, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{accumulation}.*received 16; .* to {hint}$"):
        StepRun(engine_of(replicas), linear, accumulation=accumulation)


def test_less_than_one_micro_batch() -> None:
    config = base_config()
    config.gradient_accumulation_steps, config.total_steps = 0, 1
    with pytest.raises(
        ConfigurationError, match="gradient_accumulation_steps must be a whole number of at"
    ):
        check_training(config)


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor.\nHint: a page"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"),
    ],
)
def test_too_little_memory_is_one_line_with_hints(
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

"""The maths of a step: on any number of replicas, and with dropout after a resume."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.small_runs import TINY_MODEL
from trainers.configuration import base_config
from trainers.data.digits import digits_source
from trainers.data.distributed import training_batches
from trainers.data.preprocessing_config import PreprocessingConfig
from trainers.experiment import Schedule
from trainers.experiment import make_model
from trainers.experiment import make_model_config
from trainers.losses import make_loss
from trainers.state import load_state
from trainers.state import state_arrays
from trainers.train_step import TrainStep

BATCH = 16
CLIPNORM = 0.3


def strategy_of(replicas: int) -> tf.distribute.Strategy:
    """Returns a strategy on that many logical CPUs."""
    devices = [f"CPU:{number}" for number in range(replicas)]
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    if len(tf.config.list_logical_devices("CPU")) < replicas:
        pytest.skip("this process has no logical CPUs")
    return tf.distribute.MirroredStrategy(devices)


class _Run:
    """A model and its step on some replicas."""

    def __init__(self, replicas: int, dropout: float = 0.0, **values: Any) -> None:
        self.strategy = strategy_of(replicas)
        self.config = base_config()
        self.config.model.update({**TINY_MODEL, "dropout": dropout})
        self.config.update(values)
        self.config.optimizer.learning_rate = 0.01
        self.config.optimizer.weight_decay = 0.1
        model_config = make_model_config(self.config, 10, set())
        keras.backend.clear_session()
        with self.strategy.scope():
            self.model, self.optimizer = make_model(
                self.config, model_config, Schedule(8, 0, 1, 0, 0)
            )
        self.step = TrainStep(
            model=self.model,
            optimizer=self.optimizer,
            loss=make_loss("softmax"),
            strategy=self.strategy,
            batch_size=BATCH,
            normalization="unit",
            global_clipnorm=CLIPNORM,
            seed=self.config.seed,
            jit_compile=self.config.jit_compile,
        )

    def batches(self, first_step: int) -> Any:
        return training_batches(
            digits_source("train"),
            PreprocessingConfig((8, 8), crop="none", flip=False),
            self.strategy,
            batch_size=BATCH,
            seed=0,
            start_step=first_step,
            mixup_alpha=0.0,
        )

    def train(self, first_step: int, num_steps: int) -> dict[str, float]:
        return self.step.run(self.batches(first_step), first_step, num_steps)

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self.model.trainable_variables]


@pytest.fixture(scope="module")
def on_one() -> tuple[list[np.ndarray], dict[str, float], dict[str, float]]:
    run = _Run(1)
    first, later = run.train(0, 4), run.train(4, 4)
    return run.weights(), first, later


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_same_maths_on_replicas(on_one: Any, replicas: int) -> None:
    weights, first, later = on_one
    run = _Run(replicas)
    before = run.weights()
    sums = [run.train(0, 4), run.train(4, 4)]
    for expected, found in zip((first, later), sums, strict=True):
        for name in ("loss", "gradient_norm"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name
        assert found["num_examples"] == expected["num_examples"] == 4 * BATCH
        assert found["correct"] == expected["correct"]
    for expected_weight, weight in zip(weights, run.weights(), strict=True):
        np.testing.assert_allclose(weight, expected_weight, atol=1e-5)
    # The comparison says something only if clipping bit and the weights moved.
    assert first["gradient_norm"] / 4 > CLIPNORM
    assert later["loss"] < 0.98 * first["loss"]
    assert max(np.abs(w - b).max() for w, b in zip(weights, before, strict=True)) > 0.01


def test_one_step_is_the_plain_gradient_of_the_mean_loss() -> None:
    run = _Run(1)
    batch = next(run.batches(0))
    with tf.GradientTape() as tape:
        logits = run.model(tf.cast(batch["image"], tf.float32) / 127.5 - 1, training=True)
        losses = keras.losses.categorical_crossentropy(
            batch["target"], logits, from_logits=True
        )
        loss = tf.reduce_mean(losses)
    values = [variable.value for variable in run.model.trainable_variables]
    gradients = tape.gradient(loss, values)
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients))
    sums = run.train(0, 1)
    assert sums["loss"] / BATCH == pytest.approx(float(loss), rel=1e-5)
    assert sums["gradient_norm"] == pytest.approx(norm, rel=1e-4)


class _Masks(keras.layers.Layer):
    """Writes down the dropout mask of each replica, then passes its input on."""

    def __init__(self, seen: tf.Variable) -> None:
        super().__init__()
        self.seen = seen
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        mask = keras.random.dropout(tf.ones((32,)), 0.5, seed=self.generator)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        self.seen.scatter_nd_update([[replica]], mask[None])
        return inputs + 0.0 * tf.reduce_sum(mask)


@pytest.mark.parametrize("replicas", [1, 2])
def test_masks_are_a_function_of_seed_step_and_replica(replicas: int) -> None:
    strategy = strategy_of(replicas)
    seen = tf.Variable(tf.zeros((replicas, 32)), trainable=False)
    with strategy.scope():
        inputs = keras.Input((8, 8, 3))
        hidden = _Masks(seen)(keras.layers.Flatten()(inputs))
        model = keras.Model(inputs, keras.layers.Dense(10)(hidden))
        optimizer = keras.optimizers.SGD()
        optimizer.build(model.trainable_variables)

    def masks(seed: int, step: int) -> list[tuple[float, ...]]:
        run = _Run.__new__(_Run)
        run.strategy = strategy
        run.step = TrainStep(
            model=model,
            optimizer=optimizer,
            loss=make_loss("softmax"),
            strategy=strategy,
            batch_size=BATCH,
            normalization="unit",
            global_clipnorm=None,
            seed=seed,
        )
        run.train(step, 1)
        return [tuple(mask) for mask in seen.numpy()]

    at_3, at_4 = masks(0, 3), masks(0, 4)
    assert all(len(set(mask)) == 2 for mask in at_3)
    assert len({*at_3, *at_4}) == 2 * replicas
    assert masks(0, 3) == at_3
    assert not set(masks(1, 3)) & set(at_3)


def test_dropout_goes_on_after_a_resume_as_without() -> None:
    whole = _Run(2, dropout=0.5, ema_decay=0.9)
    whole.train(0, 2)
    middle = state_arrays(whole.model, whole.optimizer)
    whole.train(2, 2)
    resumed = _Run(2, dropout=0.5, ema_decay=0.9)
    load_state(middle, resumed.model, resumed.optimizer)
    resumed.train(2, 2)
    expected = state_arrays(whole.model, whole.optimizer)
    for name, value in state_arrays(resumed.model, resumed.optimizer).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_averages_of_the_weights() -> None:
    run = _Run(2, ema_decay=0.75)
    averages = None
    for step in range(3):
        run.train(step, 1)
        weights = run.weights()
        if averages is None:
            averages = weights
        else:
            averages = [
                0.75 * a + 0.25 * w for a, w in zip(averages, weights, strict=True)
            ]
    found = run.optimizer._model_variables_moving_average
    for average, expected in zip(found, averages or [], strict=True):
        np.testing.assert_allclose(average.numpy(), expected, atol=1e-6)

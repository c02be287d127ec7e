"""The maths of a step: on any number of replicas, and with dropout after a resume."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.small_runs import assert_same_arrays
from tests.trainers.small_runs import strategy_of
from tokenlearner_keras import create_model
from trainers.data.digits import digits_source
from trainers.data.distributed import training_batches
from trainers.data.preprocessing_config import PreprocessingConfig
from trainers.errors import ConfigurationError
from trainers.losses import make_loss
from trainers.optimization import AdamW
from trainers.state import load_state
from trainers.state import state_arrays
from trainers.train_step import TrainStep

BATCH = 16
CLIPNORM = 0.3

Arrays = dict[str, np.ndarray]


class _Run:
    """A model, its optimizer and its step on some replicas.

    Args:
        replicas: 1 or 2.
        build: Makes the model; None: a small ViT.
        use_ema: Whether averages of the weights are kept, with momentum 0.75.
        clipnorm: As in the configuration.
        seed: Of the masks.
        jit_compile: As in the configuration.
    """

    def __init__(
        self,
        replicas: int,
        build: Callable[[], keras.Model] | None = None,
        *,
        use_ema: bool = False,
        clipnorm: float | None = CLIPNORM,
        seed: int = 0,
        jit_compile: bool = False,
    ) -> None:
        self.strategy = strategy_of(replicas)
        keras.backend.clear_session()  # the names of the variables begin anew
        keras.utils.set_random_seed(0)
        with self.strategy.scope():
            self.model = (build or _small_vit)()
            # Some biases have a gradient of zero, but for rounding; a small epsilon
            # would make steps of that.
            self.optimizer = AdamW(
                0.01, weight_decay=0.1, epsilon=1e-5, use_ema=use_ema, ema_momentum=0.75
            )
            self.optimizer.build(self.model.trainable_variables)
        self.step = TrainStep(
            model=self.model,
            optimizer=self.optimizer,
            loss=make_loss("softmax"),
            strategy=self.strategy,
            batch_size=BATCH,
            normalization="unit",
            global_clipnorm=clipnorm,
            seed=seed,
            jit_compile=jit_compile,
        )

    def batches(self, first_step: int) -> Any:
        """Returns the batches from a step on."""
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
        """Trains and returns the sums of the steps."""
        return self.step.run(self.batches(first_step), first_step, num_steps)

    def state(self) -> Arrays:
        """Returns weights and optimizer state."""
        return state_arrays(self.model, self.optimizer)


def _small_vit() -> keras.Model:
    return create_model("vit_ti4_d1_tl2at0", 10, 8, width=16, num_heads=2, mlp_dim=32)


def _linear(*layers: keras.layers.Layer) -> keras.Model:
    ends = keras.layers.Flatten(), keras.layers.Dense(10)
    return keras.Sequential([keras.Input((8, 8, 3)), ends[0], *layers, ends[1]])


def test_the_same_maths_on_two_replicas() -> None:
    runs = [_Run(replicas, use_ema=True) for replicas in (1, 2)]
    before = runs[0].state()
    first, later = zip(*((run.train(0, 4), run.train(4, 8)) for run in runs), strict=True)
    for one, two in (first, later):
        for name in ("loss", "gradient_norm", "correct", "num_examples"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
    one, two = (run.state() for run in runs)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, err_msg=name)
    # The comparison says something only if clipping bit and the weights moved.
    assert first[0]["gradient_norm"] / 4 > CLIPNORM
    assert first[0]["num_examples"] == 4 * BATCH
    assert later[0]["loss"] / 8 < 0.98 * first[0]["loss"] / 4
    kernels = [name for name in before if name.startswith("model/")]
    assert max(np.abs(one[name] - before[name]).max() for name in kernels) > 0.01


def test_a_step_follows_the_gradient_of_the_mean_loss() -> None:
    run = _Run(1, _linear, clipnorm=None)
    batch = next(run.batches(0))
    with tf.GradientTape() as tape:
        logits = run.model(tf.cast(batch["image"], tf.float32) / 127.5 - 1)
        losses = keras.losses.categorical_crossentropy(batch["target"], logits, from_logits=True)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [v.value for v in run.model.trainable_variables])
    sums = run.train(0, 1)
    assert sums["loss"] / BATCH == pytest.approx(float(loss), rel=1e-5)
    assert sums["gradient_norm"] == pytest.approx(float(tf.linalg.global_norm(gradients)), rel=1e-5)
    first_moment = run.state()["optimizer/00002_sequential_dense_kernel_momentum"]
    np.testing.assert_allclose(first_moment, 0.1 * gradients[0], rtol=1e-4, atol=1e-8)


def test_averages_of_the_weights() -> None:
    run = _Run(2, _linear, use_ema=True)
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


@pytest.mark.parametrize("replicas", [1, 2])
def test_masks_are_a_function_of_seed_step_and_replica(replicas: int) -> None:
    seen: list[tuple[float, ...]] = []

    def masks(run: _Run, step: int) -> set[tuple[float, ...]]:
        seen.clear()
        run.train(step, 1)
        assert len(seen) == replicas
        return set(seen)

    run, again = (_Run(replicas, lambda: _linear(_Masks(seen.append))) for _ in range(2))
    at_3, at_4 = masks(run, 3), masks(run, 4)
    assert all(set(mask) == {0.0, 2.0} for mask in at_3)
    assert len(at_3 | at_4) == 2 * replicas
    assert masks(again, 4) == at_4
    again.step = _Run(replicas, lambda: _linear(_Masks(seen.append)), seed=1).step
    assert not masks(again, 4) & at_4


def test_dropout_goes_on_after_a_resume_as_without() -> None:
    whole, resumed = (
        _Run(2, lambda: _linear(keras.layers.Dropout(0.5)), use_ema=True) for _ in range(2)
    )
    whole.train(0, 2)
    middle = whole.state()
    whole.train(2, 2)
    load_state(middle, resumed.model, resumed.optimizer)
    resumed.train(2, 2)
    assert_same_arrays(resumed.state(), whole.state())


def test_compiled_by_xla_the_step_is_the_same() -> None:
    plain, compiled = _Run(1), _Run(1, jit_compile=True)
    for run in (plain, compiled):
        run.train(0, 4)
    for name, value in plain.state().items():
        np.testing.assert_allclose(compiled.state()[name], value, atol=1e-5, err_msg=name)
    with pytest.raises(ConfigurationError, match="for one replica"):
        _Run(2, jit_compile=True)

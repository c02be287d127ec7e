"""Trainings that show the random masks of their steps."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tests.helpers.backends import ON_JAX
from tests.helpers.step_runs import StepRun
from tests.helpers.step_runs import linear
from trainers.engines.engine import Engine

Mask = tuple[float, ...]


class MaskRun:
    """A training whose model draws one dropout mask in each pass.

    Args:
        engine: Where to run.
        seed: As of `StepRun`.
        accumulation: As of `StepRun`.
    """

    def __init__(self, engine: Engine, *, seed: int = 0, accumulation: int = 1) -> None:
        self._seen: list[Mask] = []
        layer = _Masks(self._seen.append)
        self._run = StepRun(engine, lambda: linear(layer), seed=seed, accumulation=accumulation)

    def masks(self, step: int) -> list[Mask]:
        """Trains a step; returns its masks in any order, one a pass."""
        self._seen.clear()
        self._run.train(step, 1)
        if ON_JAX:
            import jax

            jax.effects_barrier()
        return list(self._seen)


class _Masks(keras.layers.Layer):
    """Hands out a dropout mask, and passes its input on."""

    def __init__(self, see: Callable[[Mask], None]) -> None:
        super().__init__()
        self.see = see
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        mask = keras.random.dropout(keras.ops.ones((32,)), 0.5, seed=self.generator)
        if ON_JAX:
            import jax

            jax.debug.callback(self._show, mask)
            return inputs
        import tensorflow as tf

        zero = tf.numpy_function(self._show, [mask], tf.float32)
        return inputs + tf.ensure_shape(zero, ())

    def _show(self, mask: Any) -> np.float32:
        self.see(tuple(np.asarray(mask).tolist()))
        return np.float32(0)

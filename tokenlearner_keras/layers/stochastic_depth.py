"""Stochastic depth: drops a residual branch for whole examples."""

from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.checks import check_rate
from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class StochasticDepth(keras.layers.Layer):
    """Zeroes whole examples with probability `rate` and scales the rest up.

    Args:
        rate: Probability in [0, 1) that an example is dropped during training. The
            kept ones are divided by `1 - rate`, so that the expectation is unchanged.
        seed: Seed of the random generator. None draws one.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Input and output shape: `(batch, ...)`.

    Raises:
        ValueError: If `rate` is outside [0, 1).

    Reference:
        Huang et al. 2016, arXiv 1603.09382; scenic `model_lib/layers/nn_layers.py`,
        `StochasticDepth`.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = check_rate(rate, "rate")
        self.seed = seed
        self.supports_masking = True
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training or self.rate == 0:
            return x
        noise_shape = (ops.shape(x)[0], *([1] * (len(x.shape) - 1)))
        return keras.random.dropout(x, self.rate, noise_shape=noise_shape, seed=self.seed_generator)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}

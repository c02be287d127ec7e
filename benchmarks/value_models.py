"""Trains a recipe with a changed model: to find out what in TokenLearner pays.

    python -m benchmarks.value_models --change=NAME --config=FILE --workdir=DIR

The trainer itself, whose model is changed after it is built. `fixed_maps` leaves the TokenLearner's
weights as they are at the beginning. `convolutions` puts the four convolutions of TokenLearner v1.0
before the second block, as a residual on its tokens. `benchmarks.value` calls it.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.common import LAYER_NORM_EPSILON
from tokenlearner_keras.layers.reshaping import FoldGrid


def fixed_maps(model: keras.Model) -> keras.Model:
    """Returns the model, whose TokenLearner is not trained."""
    for layer in model.layers:
        if isinstance(layer, BaseTokenLearner):
            layer.trainable = False
    return model


def convolutions(model: keras.Model) -> keras.Model:
    """Returns the model with the convolutions of v1.0 where a TokenLearner at 1 stands."""
    x, placed = model.inputs[0], False
    for layer in model.layers[1:]:
        before_learner = isinstance(layer, FoldGrid)
        if not placed and (before_learner or layer.name == "encoder_block_1"):
            x, placed = Convolutions(name="convolutions")(x), True
        x = layer(x)
    assert placed, [layer.name for layer in model.layers]
    return keras.Model(model.inputs, x, name=model.name)


@keras.saving.register_keras_serializable(package="benchmarks")
class Convolutions(keras.layers.Layer):
    """Adds to tokens on a square grid, `(batch, tokens, channels)`, what they and neighbours hold.

    LayerNorm, four 3x3 convolutions to eight channels with tanh GELU, as in TokenLearner v1.0, and
    a Dense layer back to the channels, which starts at zero.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        *_, positions, channels = input_shape
        assert positions is not None
        self.side = round(positions**0.5)
        self.norm = keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON)
        self.norm.build(input_shape)
        self.convolutions = []
        for width in (channels, 8, 8, 8):
            layer = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)
            layer.build((None, self.side, self.side, width))
            self.convolutions.append(layer)
        self.output_layer = keras.layers.Dense(channels, kernel_initializer="zeros")
        self.output_layer.build((None, positions, 8))

    def call(self, x: Any) -> Any:
        grid = ops.reshape(self.norm(x), (-1, self.side, self.side, x.shape[-1]))
        for convolution in self.convolutions:
            grid = ops.gelu(convolution(grid), approximate=True)
        return x + self.output_layer(ops.reshape(grid, (-1, self.side**2, 8)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def count_macs(self, input_shape: tuple[int, ...]) -> int:
        """Returns the multiply-accumulates for one input, as `tk.count_macs` asks for them."""
        positions, channels = input_shape
        return positions * (9 * 8 * (channels + 3 * 8) + 8 * channels)


CHANGES: dict[str, Callable[[keras.Model], keras.Model]] = {
    "fixed_maps": fixed_maps,
    "convolutions": convolutions,
}


def main() -> None:
    # The trainer makes models from names only, and these have none.
    named = vars(experiment)["build_model"]

    def build(*args: Any, **kwargs: Any) -> keras.Model:
        return CHANGES[flags.FLAGS.change](named(*args, **kwargs))

    vars(experiment)["build_model"] = build
    train.main()


if __name__ == "__main__":
    # Not above: the trainer's flags would be those of whoever imports this file.
    from absl import flags

    from trainers import experiment
    from trainers import train
    from trainers.configuration.configuration import parse_config_flag
    from trainers.utils import cli

    train.define_flags()
    flags.DEFINE_enum("change", None, list(CHANGES), "How to change the model.", required=True)
    cli.run(main, parse_config_flag)

"""Rematerialisation: activations computed again in the backward pass, not kept for it."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def rematerialize(layer: keras.layers.Layer, function: Callable[[Any], Any], x: Any) -> Any:
    """Returns `function(x)` and keeps only `x` and the weights for the backward pass.

    `keras.remat` alone is not enough: its second pass would draw other dropout masks, and
    under JAX the first would let traced states out. So the function is made a pure one of
    its input, weights and seeds, by a `keras.StatelessScope`, and the generators move on
    outside of it, by the one draw each that a call makes. Outputs, gradients and random
    numbers are then those of `function(x)` called plainly.

    Args:
        layer: Owns all weights and seed generators that the function uses; built, and in
            force without autocast, so that each weight has its own dtype here.
        function: One pass of the layer, which draws once from each generator.
        x: Its input.
    """
    trained = layer.trainable_variables
    others = [(each, _taken(each)) for each in layer.non_trainable_variables]

    def pure(x: Any, *weights: Any) -> Any:
        with keras.StatelessScope([*zip(trained, weights, strict=True), *others]):
            return function(x)

    return keras.remat(pure)(x, *(ops.convert_to_tensor(variable) for variable in trained))


def _taken(variable: keras.Variable) -> Any:
    """Returns the value of a variable; the state of a generator moves on by one draw."""
    if variable.name != "seed_generator_state":
        return ops.convert_to_tensor(variable)
    state = variable.value * 1  # a copy, as in keras.random.SeedGenerator
    variable.assign(state + ops.convert_to_tensor([0, 1], dtype=variable.dtype))
    return state

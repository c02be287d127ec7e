"""Rematerialisation: activations computed again in the backward pass, not kept for it."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def rematerialize(
    layers: Sequence[keras.layers.Layer], function: Callable[[Any], Any], x: Any
) -> Any:
    """Returns `function(x)` and keeps only `x` and the weights for the backward pass.

    `keras.remat` alone is not enough: its second pass would draw other dropout masks and
    move the statistics of batch norms again, and under JAX the first would let traced states
    out. So the function is made a pure one of its input, weights, statistics and seeds, by a
    `keras.StatelessScope`; the statistics that it returns are kept once, and the generators
    move on outside of it, by the one draw each that a call makes. Outputs, gradients,
    statistics and random numbers are then those of `function(x)` called plainly.

    Args:
        layers: Own all weights and seed generators that the function uses; built. Call it
            in force without autocast, so that each weight has its own dtype here.
        function: One pass of the layers, which draws once from each generator.
        x: Its input.
    """
    trained = [variable for layer in layers for variable in layer.trainable_variables]
    fixed = [variable for layer in layers for variable in layer.non_trainable_variables]
    seeds = [(each, _taken(each)) for each in fixed if _is_seed(each)]
    statistics = [each for each in fixed if not _is_seed(each)]
    variables = [*trained, *statistics]

    def pure(x: Any, *values: Any) -> tuple[Any, ...]:
        with keras.StatelessScope([*zip(variables, values, strict=True), *seeds]) as scope:
            return function(x), *(scope.get_current_value(each) for each in statistics)

    values = [ops.convert_to_tensor(variable) for variable in trained]
    # Copies: torch changes a variable in place, and the second pass needs what it was.
    values += [variable.value * 1 for variable in statistics]
    outputs, *moved = keras.remat(pure)(x, *values)
    for variable, value in zip(statistics, moved, strict=True):
        variable.assign(value)
    return outputs


def _is_seed(variable: keras.Variable) -> bool:
    return bool(variable.name == "seed_generator_state")


def _taken(variable: keras.Variable) -> Any:
    """Returns the state of a generator, and moves it on by one draw."""
    state = variable.value * 1  # a copy, as in keras.random.SeedGenerator
    variable.assign(state + ops.convert_to_tensor([0, 1], dtype=variable.dtype))
    return state

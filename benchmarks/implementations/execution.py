"""Runs a Keras layer or model forward, or with gradients, in a mode of the backend."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.worker import Arm

Arrays = dict[str, np.ndarray]


def layer_arm(
    layer: keras.layers.Layer,
    inputs: Arrays,
    cotangent: Arrays,
    direction: str,
    mode: str,
    packages: tuple[str, ...],
) -> Arm:
    """Makes an arm of a built layer.

    Args:
        layer: Or a model.
        inputs: Of its call, in order.
        cotangent: `cotangent`, of the output's shape.
        direction: `forward`, or `both` for the gradients of inputs and weights too.
        mode: `graph` or `xla` on TensorFlow, `jit` on JAX.
        packages: As in `Arm`, besides the backend.
    """
    make = {"tensorflow": _tensorflow, "jax": _jax}[keras.backend.backend()]
    forward, both = make(layer, list(inputs.values()), cotangent["cotangent"], mode)
    run = forward if direction == "forward" else both

    def result() -> Arrays:
        if direction == "forward":
            return {"output": np.asarray(forward())}
        gradients = both()[0]
        return {name: np.asarray(g) for name, g in zip(inputs, gradients, strict=True)}

    return Arm(run, result, (*packages, keras.backend.backend()))


Runs = tuple[Callable[[], Any], Callable[[], Any]]


def _tensorflow(layer: Any, inputs: list[Any], cotangent: Any, mode: str) -> Runs:
    import tensorflow as tf

    constants = [tf.constant(array) for array in inputs]
    weight = tf.constant(cotangent)
    variables = [variable.value for variable in layer.trainable_variables]

    @tf.function(jit_compile=mode == "xla")
    def forward(arrays: list[Any]) -> Any:
        return layer(*arrays)

    @tf.function(jit_compile=mode == "xla")
    def both(arrays: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            loss = tf.reduce_sum(layer(*arrays) * weight)
        return tape.gradient(loss, (arrays, variables))

    # Reading the results waits for them.
    return (
        lambda: forward(constants).numpy(),
        lambda: tf.nest.map_structure(lambda t: t.numpy(), both(constants)),
    )


def _jax(layer: Any, inputs: list[Any], cotangent: Any, mode: str) -> Runs:
    import jax
    import jax.numpy as jnp

    assert mode == "jit"
    arrays = [jnp.asarray(array) for array in inputs]
    weights = [jnp.asarray(variable.value) for variable in layer.trainable_variables]
    cotangent = jnp.asarray(cotangent)

    def call(arrays: list[Any], weights: list[Any]) -> Any:
        return layer.stateless_call(weights, [], *arrays)[0]

    def loss(arrays: list[Any], weights: list[Any]) -> Any:
        return jnp.sum(call(arrays, weights) * cotangent)

    forward = jax.jit(call)
    both = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return (
        lambda: jax.block_until_ready(forward(arrays, weights)),
        lambda: jax.block_until_ready(both(arrays, weights)),
    )

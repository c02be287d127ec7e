"""Runs a Keras model: inference, a training step with AdamW, or its update alone, compiled."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.worker import Arm

#: By direction.
Runs = dict[str, Callable[[], Any]]


def model_arm(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    direction: str,
    mode: str,
    packages: tuple[str, ...],
) -> Arm:
    """Makes an arm of a model.

    Args:
        model: With logits as its output.
        images: A batch of inputs.
        labels: Its classes.
        direction: `inference`, `training`, or `update`: a training step without what leads to
            its gradients.
        mode: `graph` or `xla` on TensorFlow, `jit` on JAX.
        packages: As in `Arm`, besides the backend.
    """
    make = {"tensorflow": _tensorflow, "jax": _jax}[keras.backend.backend()]
    run = make(model, images, labels, mode)[direction]

    def result() -> dict[str, np.ndarray]:
        return {"logits": np.asarray(run())} if direction == "inference" else {}

    return Arm(run, result, (*packages, keras.backend.backend()))


def _loss_and_optimizer() -> tuple[Any, Any]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return loss, keras.optimizers.AdamW(1e-5)


def _tensorflow(model: Any, images: Any, labels: Any, mode: str) -> Runs:
    import tensorflow as tf

    loss_function, optimizer = _loss_and_optimizer()
    optimizer.build(model.trainable_variables)
    images, labels = tf.constant(images), tf.constant(labels)
    variables = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=mode == "xla")
    def infer(images: Any) -> Any:
        return model(images, training=False)

    @tf.function(jit_compile=mode == "xla")
    def train(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True))
        optimizer.apply(tape.gradient(loss, variables), model.trainable_variables)
        return loss

    @tf.function(jit_compile=mode == "xla")
    def update(gradients: Any) -> Any:
        optimizer.apply(gradients, model.trainable_variables)
        return optimizer.iterations.value

    gradients = [tf.ones_like(variable) for variable in variables]
    return {
        "inference": lambda: infer(images).numpy(),
        "training": lambda: train(images, labels).numpy(),
        "update": lambda: update(gradients).numpy(),
    }


def _jax(model: Any, images: Any, labels: Any, mode: str) -> Runs:
    import jax
    import jax.numpy as jnp

    assert mode == "jit"
    loss_function, optimizer = _loss_and_optimizer()
    optimizer.build(model.trainable_variables)
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    state = [
        [jnp.asarray(variable.value) for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
    ]

    def loss(weights: Any, others: Any, images: Any, labels: Any) -> Any:
        logits, others = model.stateless_call(weights, others, images, training=True)
        return loss_function(labels, logits), others

    @jax.jit
    def infer(weights: Any, others: Any, images: Any) -> Any:
        return model.stateless_call(weights, others, images, training=False)[0]

    def step(state: Any, images: Any, labels: Any) -> Any:
        weights, others, slots = state
        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(
            weights, others, images, labels
        )
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return [weights, others, slots], value

    compiled = jax.jit(step, donate_argnums=0)

    def train() -> Any:
        state[:], value = compiled(state, images, labels)
        return jax.block_until_ready(value)

    def apply(state: Any, gradients: Any) -> Any:
        weights, others, slots = state
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return [weights, others, slots]

    compiled_apply = jax.jit(apply, donate_argnums=0)
    gradients = [jnp.ones_like(value) for value in state[0]]

    def update() -> Any:
        state[:] = compiled_apply(state, gradients)
        return jax.block_until_ready(state)

    return {
        "inference": lambda: jax.block_until_ready(infer(state[0], state[1], images)),
        "training": train,
        "update": update,
    }
